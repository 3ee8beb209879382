"""Decaying incompressible flow in a periodic box: random eddies, or the Taylor-Green vortex, in two or three
dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sciml.datasets import FaceFieldInfo, FieldInfo
from sciml.errors import ConfigError, SolverError
from sciml.problems import mac
from sciml.problems.base import Problem, as_times, detached
from sciml.problems.cases import Parameter, ParameterValues
from sciml.problems.draws import draw_number, log_uniform, uniform
from sciml.problems.initial_field import as_initial
from sciml.problems.recipes import operator_options

if TYPE_CHECKING:
    from sciml.physics import Boundaries, Grid

RANDOM, TAYLOR_GREEN = 0.0, 1.0
MODES = 8
"""Random flows are sums of the waves with at most this many periods along each side."""
MOST_WAVES = 3.0
"""The spectrum of a random flow has fallen to a thousandth of its peak before it meets the largest wave number."""

CELLS_PER_SCALE = 3.0
"""Cells are at most this many Kolmogorov lengths wide: k_max eta >= pi / 3, the usual bound of resolved turbulence.
At the bound, two waves along a side and four turn-over times, the velocity is within 9 % of that on twice the cells in
three dimensions and 3 % in two; with one wave within 3 % and 0.3 %."""
SMALLEST_REYNOLDS = 5.0

CFL = 0.8

OPERATOR_OPTIONS: dict[int, dict[str, dict[str, Any]]] = {
    2: {
        "unet": {"patch_size": 2, "hidden_channels": [48, 64, 96]},
        "fno": {"patch_size": 1, "n_modes": [16, 16], "hidden_channels": 32},
    },
    3: {
        "unet": {"patch_size": 2, "hidden_channels": [32, 64]},
        "fno": {"patch_size": 2, "n_modes": [8, 8, 8], "hidden_channels": 32},
    },
}
"""Constructor arguments of the operators in the default recipe, by dimension."""


class PeriodicFlow(Problem):
    """Decaying flow in a periodic box of side ``length``, unforced and without mean flow.

    ``u = curl A`` at time 0. Random: Gaussian coefficients of A whose velocity has the energy spectrum
    ``E(k) ~ k^4 exp(-2 (k / k0)^2)`` on average, k0 = 2 pi waves / length, scaled to the rms speed. Taylor-Green
    (Proc. R. Soc. A 158 (1937) 499): ``A = sin(k x) sin(k y) cos(k z) e_z``, moved by a random vector. The discrete
    curl makes the discrete divergence zero to round-off.
    """

    name = "periodic_flow"
    title = "Decaying flow in a periodic box"
    dims = (3, 2)
    divergence_free = True
    steps_by_equation = True
    frames = 11
    frame_interval = 0.2
    solver = f"MAC projection, AB2 + Crank-Nicolson, fast diagonalisation, CFL {CFL}"
    parameters = (
        Parameter("viscosity", "m^2/s", "kinematic viscosity of the fluid"),
        Parameter("speed", "m/s", "root mean square of the velocity vector at time 0"),
        Parameter("waves", "1", "periods of the most energetic wave along a side of the box"),
        Parameter("length", "m", "side of the box", default=2 * math.pi),
        Parameter("vortex", "1", "0: random eddies, 1: Taylor-Green", "nonnegative", (RANDOM, TAYLOR_GREEN), RANDOM),
        Parameter("draw", "1", "selects the random coefficients, or the place of the vortex", default=0.0, draw=True),
    )
    subsets = ("random", "taylor_green")
    mixture = ("random", "random", "random", "taylor_green")
    condition_names = ("log_reynolds", "log_interval", "log_waves")
    lookup_weights = (1.0, 1.0, 1.0)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim)
        # a plane flow is cheap; a few cubes fill the cache, and larger batches of them are slower
        self.resolution, self.group = (64, 12) if self.dim == 2 else (32, 2)  # type: ignore[misc]

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        return mac.flow_fields(self.dim, "m^2/s^2")

    @property
    def face_fields(self) -> tuple[FaceFieldInfo, ...]:
        return mac.face_fields(self.dim)

    def draw(self, subset: str, generator: torch.Generator, resolution: int) -> dict[str, float]:
        """One case in a box of side 2 pi: rms speed log-uniform in 0.7..1.4 m/s, Reynolds number log-uniform from 5 to
        what the grid resolves.

        ``random``: 1 to 2 waves along a side; ``taylor_green``: one.
        """
        random = subset == "random"
        waves = uniform(generator, 1.0, 2.0) if random else 1.0
        case = {"speed": log_uniform(generator, 0.7, 1.4), "waves": waves, "vortex": RANDOM if random else TAYLOR_GREEN}
        if resolved_reynolds(resolution, most_waves := 2.0 if random else 1.0, self.dim) < 2 * SMALLEST_REYNOLDS:
            raise SolverError(
                f"resolution {resolution} resolves Reynolds numbers up to "
                f"{resolved_reynolds(resolution, most_waves, self.dim):.1f} only, and cases of {subset!r} are drawn up "
                f"to at least {2 * SMALLEST_REYNOLDS:.0f}; use a resolution of at least "
                f"{_needed_resolution(2 * SMALLEST_REYNOLDS, most_waves, self.dim)}"
            )
        largest = resolved_reynolds(resolution, waves, self.dim)
        reynolds = log_uniform(generator, SMALLEST_REYNOLDS, largest)
        case["viscosity"] = case["speed"] / (waves * reynolds)
        case["draw"] = draw_number(generator)
        return case

    def as_parameters(
        self, values: ParameterValues, batch: int | None = None, *, draws: bool = True
    ) -> dict[str, Tensor]:
        """As every problem; and a Taylor-Green vortex has a whole number of waves, a random flow at most 3."""
        tensors = super().as_parameters(values, batch, draws=draws)
        waves, vortex = tensors["waves"], tensors["vortex"]
        fits = torch.where(vortex == TAYLOR_GREEN, waves == waves.round(), waves <= MOST_WAVES)
        if not fits.all():
            case = int((~fits).nonzero()[0, 0])
            raise ConfigError(
                f"parameter 'waves' of case {case} is {waves[case].tolist()}; it must be a whole number for the "
                f"Taylor-Green vortex and at most {MOST_WAVES:g} for random eddies"
            )
        return tensors

    def reynolds(self, parameters: ParameterValues) -> Tensor:
        """``U / (k0 nu)`` at time 0, ``(B,)``: U the rms speed, k0 = 2 pi waves / length."""
        values = self.as_parameters(parameters)
        return values["speed"] * values["length"] / (2 * math.pi * values["waves"] * values["viscosity"])

    def check_resolved(self, parameters: ParameterValues, resolution: Sequence[int]) -> None:
        """Raise ``SolverError`` if the cells are too wide for the smallest eddies of a case."""
        values = self.as_parameters(parameters)
        reynolds = self.reynolds(values)
        for case, (value, waves) in enumerate(zip(reynolds.tolist(), values["waves"].tolist(), strict=True)):
            largest = resolved_reynolds(min(resolution), waves, self.dim)
            if value > largest * (1 + 1e-9):
                raise SolverError(
                    f"case {case} has Reynolds number {value:.3g} and {waves:.3g} waves along a side; a "
                    f"{'x'.join(map(str, resolution))} grid resolves its smallest eddies ({CELLS_PER_SCALE:g} "
                    f"Kolmogorov lengths a cell) up to {largest:.3g}. Use resolution >= "
                    f"{_needed_resolution(value, waves, self.dim)} or lower the Reynolds number"
                )

    def cost(self, parameters: ParameterValues, times: Tensor, resolution: int = 32) -> Tensor:
        """Steps that the CFL condition asks for, ``(B,)``: the sum of the components peaks near 3 rms speeds."""
        values = self.as_parameters(parameters)
        return (times[:, -1] - times[:, 0]) * 3 * values["speed"] * resolution / (CFL * values["length"])

    def initial(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """The velocity at time 0 at the cell centres ``(B, dim, *grid)``."""
        from sciml.physics import faces_to_centres, metrics

        values = self.as_parameters(parameters)
        grid = self._grid(self.grid(resolution), values, "cpu")
        faces = initial_faces(grid, values)
        return faces_to_centres(faces, metrics(grid, dtype=torch.float64)).to(device, dtype)

    def solve(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        times: Tensor | Sequence[float] | None = None,
        *,
        initial: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Solve the incompressible Navier-Stokes equations.

        ``times``: ``(T,)`` shared or ``(B, T)`` per case, in seconds, increasing from 0. ``initial (B, dim, *grid)``:
        the user's own velocity at the cell centres (made divergence-free) instead of the problem's. Returns ``velocity
        (B, T, dim, *grid)``, ``pressure (B, T, 1, *grid)`` (kinematic, zero mean), the face velocities and ``time (B,
        T)``. Each field keeps ``dtype``.

        Raises ``ConfigError`` for bad parameters, times or initial velocity, ``SolverError`` for a Reynolds number
        that the grid cannot resolve.
        """
        from sciml.physics import centres_to_faces
        from sciml.solvers import IncompressibleSolver

        shape = self.grid(resolution)
        values = self.as_parameters(parameters)
        batch = values["viscosity"].shape[0]
        times = self.frame_times(values) if times is None else as_times(times, batch)
        self.check_resolved(detached(values), shape)
        grid = self._grid(shape, values, device)
        solver = IncompressibleSolver(
            grid, _boundaries(self.dim), values["viscosity"].to(device), dtype=dtype, device=device, cfl=CFL
        )
        if initial is None:
            faces = initial_faces(self._grid(shape, values, "cpu"), values)
        else:
            velocity = as_initial(initial, (batch, self.dim, *shape), dtype=dtype, device=device)
            faces = centres_to_faces(velocity, solver.metrics, solver.values)
        state = solver.state_from_velocity(faces)
        return mac.march(solver, state, times, torch.ones(batch))

    def scales(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Velocity: the rms speed at time 0; pressure: half its square."""
        speed = parameters["speed"]
        return {"velocity": torch.stack([speed] * self.dim, -1), "pressure": (0.5 * speed**2).unsqueeze(-1)}

    def conditions(self, parameters: Mapping[str, Tensor], interval: Tensor) -> Tensor:
        """``log Re``, ``log k0 U dt``, ``log waves``: what the flow depends on beside its initial state."""
        speed, waves = parameters["speed"], parameters["waves"]
        wavenumber = 2 * math.pi * waves / parameters["length"]
        reynolds = speed / (wavenumber * parameters["viscosity"])
        return torch.stack([reynolds.log(), (wavenumber * speed * interval).log(), waves.log()], -1)

    def lengths(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """A square or a cube."""
        return torch.stack([parameters["length"]] * self.dim, -1)

    def boundaries(self, subset: str = "all") -> dict[str, str]:
        """Periodic on every side."""
        return {f"{axis}_{end}": "periodic" for axis in mac.AXES[: self.dim] for end in ("low", "high")}

    def residual(self, trajectory: Mapping[str, Tensor], parameters: ParameterValues) -> dict[str, tuple[Tensor, ...]]:
        """Discrete Navier-Stokes residual of a trajectory's face velocities, differentiable.

        ``momentum``: per component ``(B, T - 1, *grid)`` in m/s^2, between consecutive frames (trapezoidal in time);
        ``continuity``: ``((B, T, *grid),)`` in 1/s.
        """
        faces = trajectory["face_velocity_x"]
        values = self.as_parameters(parameters, faces.shape[0])
        grid = self._grid(tuple(faces.shape[2:]), values, faces.device)
        density = torch.ones(faces.shape[0])
        sides = _boundaries(self.dim)
        return mac.trajectory_residual(trajectory, grid, density, values["viscosity"], lambda _: sides)

    def start(
        self,
        parameters: ParameterValues,
        resolution: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """``initial``."""
        return self.initial(parameters, resolution, dtype, device)

    def trajectory_defect(self, frames: Tensor, parameters: ParameterValues, interval: Tensor) -> Tensor:
        """Of frames ``(B, K + 1, dim, *grid)``, in m/s: ``mac.trajectory_defect``."""
        values, interval = self._of_steps(frames, parameters, interval)
        shape, sides = tuple(frames.shape[3:]), _boundaries(self.dim)

        def setting(n: int) -> tuple[Grid, Boundaries]:
            repeated = {"length": values["length"].repeat_interleave(n, 0)}
            return self._grid(shape, repeated, frames.device), sides

        return mac.trajectory_defect(frames, interval, values["viscosity"], setting)

    def recipe(self, operator: str | None = None) -> dict[str, Any]:
        """The default of ``sciml train --problem periodic_flow``."""
        name = operator or "unet"
        return {
            "problem": self.name,
            "operator": {"name": name, **operator_options(name, OPERATOR_OPTIONS[self.dim], self.grid())},
            "data": {
                "cases": {"train": 64, "validation": 8, "test": 16},
            },
            # In 3D many steps on few samples learn more in the same time than few steps on many.
            "batch_size": 4 if self.dim == 3 else 16,
            "task": {"unroll": 2, "unroll_from": 0.8},
            "budget": {"minutes": 4.0 if self.dim == 3 else 2.0},
        }

    def _grid(self, shape: tuple[int, ...], values: Mapping[str, Tensor], device: torch.device | str) -> Grid:
        from sciml.physics import box

        return box(shape, self.lengths(values).to(device), periodic=True)


# ------------------------------------------------------------------------------------------------------- initial flow


def initial_faces(grid: Grid, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Face velocities ``(B, *grid)`` float64 at time 0: the discrete curl of a vector potential on the cells' edges.

    Component i of the potential lives on the edges along axis i (in two dimensions: component z on the corners), so
    that the discrete divergence of its curl vanishes identically. Grid and values are on the CPU.
    """
    potentials: dict[int, list[Tensor]] = {i: [] for i in ((0, 1, 2) if grid.dim == 3 else (2,))}
    for case in range(grid.batch):
        positions = [(axis.faces[: axis.n], axis.centres) for axis in grid.axes]  # in units of the side
        of_case = {name: float(values[name][case]) for name in ("waves", "vortex", "draw", "speed")}
        parts = _taylor_green(positions, of_case) if of_case["vortex"] == TAYLOR_GREEN else _random(positions, of_case)
        for i, part in parts.items():
            potentials[i].append(part)
    speed = values["speed"].double().reshape(-1, *(1,) * grid.dim)
    potential = {i: torch.stack(parts) * speed for i, parts in potentials.items()}
    cells = torch.tensor(grid.shape, dtype=torch.float64)  # the potential is in units of the side, like the positions

    def slope(i: int, axis: int) -> Tensor:
        return (potential[i].roll(-1, axis + 1) - potential[i]) * cells[axis]

    if grid.dim == 2:
        return slope(2, 1), -slope(2, 0)
    return slope(2, 1) - slope(1, 2), slope(0, 2) - slope(2, 0), slope(1, 0) - slope(0, 1)


Positions = list[tuple[Tensor, Tensor]]


def _edges(positions: Positions, component: int) -> list[Tensor]:
    """Where a component of the potential lives: at the centres along its own axis, at the faces along the others."""
    return [pair[1] if axis == component else pair[0] for axis, pair in enumerate(positions)]


def _taylor_green(positions: Positions, case: Mapping[str, float]) -> dict[int, Tensor]:
    """A_z of unit rms speed, moved by a random vector.

    The curl of sin sin cos e_z has the rms k / 2, that of sin sin e_z in two dimensions k / sqrt(2).
    """
    dim = len(positions)
    generator = torch.Generator().manual_seed(int(case["draw"]))
    shift = torch.rand(3, generator=generator, dtype=torch.float64)
    wavenumber = 2 * math.pi * case["waves"]
    x = [wavenumber * (position + shift[axis]) for axis, position in enumerate(_edges(positions, 2))]
    value = torch.sin(x[0])[:, None] * torch.sin(x[1])
    if dim == 3:
        value = value[..., None] * torch.cos(x[2])
    zero = torch.zeros_like(value)
    scaled = value * (2.0 if dim == 3 else math.sqrt(2.0)) / wavenumber
    return {0: zero, 1: zero, 2: scaled} if dim == 3 else {2: scaled}


def _random(positions: Positions, case: Mapping[str, float]) -> dict[int, Tensor]:
    """A random potential whose curl has unit rms speed; the coefficients do not depend on the grid."""
    dim = len(positions)
    components = (0, 1, 2) if dim == 3 else (2,)
    generator = torch.Generator().manual_seed(int(case["draw"]))
    side = 2 * MODES + 1
    noise = torch.randn(len(components), 2, *(side,) * dim, generator=generator, dtype=torch.float64)
    coefficients = torch.complex(noise[:, 0], noise[:, 1])
    numbers = torch.arange(-MODES, MODES + 1, dtype=torch.float64)
    k = torch.stack(torch.meshgrid(*[numbers] * dim, indexing="ij"))
    square = k.square().sum(0)
    # a shell of radius k holds k^(dim - 1) waves and the curl brings another k^2:
    # |A|^2 k^2 k^(dim - 1) ~ k^4 exp(-2 (k / k0)^2)
    power = square ** ((3 - dim) / 2) * torch.exp(-2 * square / case["waves"] ** 2)
    power[(MODES,) * dim] = 0.0
    coefficients = coefficients * power.sqrt()
    # the potential is the real part of the sum over all waves, so the amplitude of wave k is c(k) + conj(c(-k)) over 2
    amplitude = 0.5 * (coefficients + coefficients.flip(*range(1, dim + 1)).conj())
    curl = _curl_power(amplitude, k)
    amplitude = amplitude / (2 * math.pi * curl.sum().sqrt())
    result = {}
    for index, component in enumerate(components):
        value = amplitude[index]
        for position in _edges(positions, component):
            waves = torch.exp(2j * math.pi * position[:, None] * numbers)  # (n, side)
            value = torch.tensordot(value, waves, dims=([0], [1]))  # the next axis comes first, this one goes last
        result[component] = value.real
    return result


def _curl_power(amplitude: Tensor, k: Tensor) -> Tensor:
    """``|k x A|^2`` of every wave."""
    if len(k) == 2:
        return k.square().sum(0) * amplitude[0].abs().square()
    return torch.linalg.cross(k.to(amplitude.dtype), amplitude, dim=0).abs().square().sum(0)


def _boundaries(dim: int) -> dict[str, Any]:
    from sciml.physics import Periodic

    return {f"{axis}_{end}": Periodic() for axis in mac.AXES[:dim] for end in ("low", "high")}


# --------------------------------------------------------------------------------------------------------- resolution


def resolved_reynolds(cells: int, waves: float, dim: int) -> float:
    """The largest ``U / (k0 nu)`` whose smallest eddies a grid with this many cells along a side resolves.

    The Kolmogorov length is ``eta = (nu^3 / eps)^(1/4)``. The dissipation starts as ``eps = nu <omega^2>`` with
    ``<omega^2>`` at most ``3 (k0 U)^2`` (Taylor-Green in 3D; in 2D 2, random 1.25). In three dimensions stretched
    vortices raise it, but not beyond ``0.25 k0 U^3`` (at high Reynolds numbers Taylor-Green peaks at 0.1, where
    U is the rms speed; turbulence decays with about 0.2). Hence ``k0 eta = max(3 Re^2, 0.25 Re^3)^(-1/4)``, and a cell
    of ``2 pi waves / (cells k0)`` is at most three of those.
    """
    smallest = 2 * math.pi * waves / (cells * CELLS_PER_SCALE)  # k0 eta
    viscous = smallest**-2 / math.sqrt(3.0)
    if dim == 2:
        return viscous
    return min(viscous, (0.25 * smallest**4) ** (-1 / 3))


def _needed_resolution(reynolds: float, waves: float, dim: int) -> int:
    stretched = 0.25 * reynolds**3 if dim == 3 else 0.0
    return math.ceil(2 * math.pi * waves / CELLS_PER_SCALE * max(3 * reynolds**2, stretched) ** 0.25 - 1e-9)
