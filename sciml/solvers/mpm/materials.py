"""Materials: constants, what a particle does in one step, stored energy, wave speed.

Constants are numbers or tensors ``(P_m,)`` with one value for each particle of that material, in SI units. A
material answers ``respond(deformation, swelling, around, dt)`` with the new (elastic) deformation gradient, the
Kirchhoff stress and the swelling; all tensors are components first (``algebra``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from sciml.errors import ConfigError
from sciml.solvers.mpm import laws, return_maps
from sciml.solvers.mpm.algebra import determinant, matmul, trace
from sciml.solvers.mpm.laws import Modulus

Response = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Around:
    """What a particle meets in one step: velocity gradient ``rate`` ``(d, d, P)``, undeformed ``density`` ``(P,)``, and
    ``filling`` ``(P,)``, the undeformed particle volume (and solid) per volume on the grid (None: not known)."""

    rate: Tensor
    density: Tensor
    filling: Tensor | None


M = TypeVar("M", bound="Material")


@dataclass(frozen=True, eq=False)
class Material:
    """Base of all materials: checks the range of every constant."""

    uses_filling: ClassVar[bool] = False
    # (low, high) of each constant; "[" marks an end that is allowed itself.
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = {}

    def __post_init__(self) -> None:
        for name, (low, high, ends) in self.RANGES.items():
            value = torch.as_tensor(getattr(self, name), dtype=torch.float64).detach()
            inside = (value >= low if ends[0] == "[" else value > low) & (value < high)
            if not bool(inside.all()):
                raise ConfigError(
                    f"{type(self).__name__}: {name} must lie in {ends[0]}{low:g}, {high:g}), "
                    f"got {value[~inside].flatten()[0].item():g}"
                )

    def constants(self) -> dict[str, Modulus]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def cast(self: M, like: Tensor, count: int) -> M:
        """The same material with tensors of the type and device of ``like``; ConfigError if a tensor is not
        ``(count,)``."""
        tensors = {}
        for name, value in self.constants().items():
            if isinstance(value, Tensor) and value.ndim:
                if value.shape != (count,):
                    raise ConfigError(
                        f"{type(self).__name__}: {name} has shape {tuple(value.shape)}, expected a number or ({count},)"
                    )
                tensors[name] = value.to(like)
        return replace(self, **tensors)

    def respond(self, deformation: Tensor, swelling: Tensor, around: Around, dt: float) -> Response:
        raise NotImplementedError

    def energy(self, deformation: Tensor, density: Tensor) -> Tensor:
        """Stored elastic energy per undeformed volume ``(P,)`` in J/m^d."""
        raise NotImplementedError

    def wave_speed(self, deformation: Tensor, density: Tensor) -> Tensor:
        """Speed of pressure waves ``(P,)`` in m/s."""
        raise NotImplementedError

    def kinematic_viscosity(self, density: Tensor) -> Tensor | None:
        """Explicitly integrated viscosity / density ``(P,)`` in m^2/s, which limits the step; None without."""
        return None


ELASTIC: dict[str, tuple[float, float, str]] = {
    "young": (0.0, float("inf"), "("),
    "poisson": (-1.0, 0.5, "("),
}
NOT_NEGATIVE = (0.0, float("inf"), "[")
# Filling below which water is spray. Well-packed water varies by +- 10 % with the places of the particles. Measured
# level of two settled splashes over the exact one: 1.66 and 1.37 without, 1.00 and 1.01 with 0.8, 1.13 and
# 1.12 with 0.7.
SPARSE = 0.8
LARGEST_VOLUME = 3.0  # J of the loneliest drop


def _advanced(deformation: Tensor, rate: Tensor, dt: float) -> Tensor:
    """(I + dt C) F."""
    return deformation + dt * matmul(rate, deformation)


@dataclass(frozen=True, eq=False)
class Elastic(Material):
    """An elastic solid with Young's modulus ``young`` in Pa and Poisson's ratio ``poisson``."""

    young: Modulus
    poisson: Modulus
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = ELASTIC

    @property
    def lame(self) -> tuple[Modulus, Modulus]:
        return laws.lame(self.young, self.poisson)

    def wave_speed(self, deformation: Tensor, density: Tensor) -> Tensor:
        mu, lam = self.lame
        return ((lam + 2 * mu) / density).sqrt()


@dataclass(frozen=True, eq=False)
class FixedCorotated(Elastic):
    """Jelly: fixed corotated elasticity."""

    def respond(self, deformation: Tensor, swelling: Tensor, around: Around, dt: float) -> Response:
        f = _advanced(deformation, around.rate, dt)
        return f, laws.fixed_corotated_stress(f, *self.lame), swelling

    def energy(self, deformation: Tensor, density: Tensor) -> Tensor:
        return laws.fixed_corotated_energy(deformation, *self.lame)


@dataclass(frozen=True, eq=False)
class NeoHookean(Elastic):
    """Rubber: compressible neo-Hookean elasticity, the cheapest law."""

    def respond(self, deformation: Tensor, swelling: Tensor, around: Around, dt: float) -> Response:
        f = _advanced(deformation, around.rate, dt)
        return f, laws.neo_hookean_stress(f, *self.lame), swelling

    def energy(self, deformation: Tensor, density: Tensor) -> Tensor:
        return laws.neo_hookean_energy(deformation, *self.lame)


@dataclass(frozen=True, eq=False)
class Fluid(Material):
    """Water: weakly compressible Newtonian fluid without tension (Tait's law).

    ``sound_speed`` in m/s: ten times the fastest flow keeps the density within 1 %; ``viscosity`` in Pa s;
    ``exponent`` of Tait's law.
    """

    sound_speed: Modulus
    viscosity: Modulus = 0.0
    exponent: Modulus = 7.0
    uses_filling: ClassVar[bool] = True
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = {
        "sound_speed": (0.0, float("inf"), "("),
        "viscosity": NOT_NEGATIVE,
        "exponent": (1.0, float("inf"), "("),
    }

    def respond(self, deformation: Tensor, swelling: Tensor, around: Around, dt: float) -> Response:
        # 1 + dt tr C, not det(I + dt C): a rotation must not change the volume.
        j = determinant(deformation).clamp_max(1) * (1 + dt * trace(around.rate))
        j = j.clamp(laws.SMALLEST_STRETCH, 1.0)
        if around.filling is not None:
            # Drops that meet again count as dense (J = 1) although they lie apart, and the water would gain volume
            # for ever. The grid knows: where it is sparse there is no pressure until it is full.
            j = torch.maximum(j, (SPARSE / around.filling).clamp_max(LARGEST_VOLUME))
        pressure = laws.tait_pressure(j, around.density * self.sound_speed**2, self.exponent)
        stress = laws.newtonian_stress(j, pressure, around.rate, self.viscosity)
        return laws.isotropic_deformation(j, len(around.rate)), stress, swelling

    def energy(self, deformation: Tensor, density: Tensor) -> Tensor:
        return laws.tait_energy(determinant(deformation), density * self.sound_speed**2, self.exponent)

    def wave_speed(self, deformation: Tensor, density: Tensor) -> Tensor:
        return self.sound_speed * determinant(deformation).clamp_max(1) ** (-(self.exponent - 1) / 2)

    def kinematic_viscosity(self, density: Tensor) -> Tensor | None:
        if not isinstance(self.viscosity, Tensor) and self.viscosity == 0:
            return None
        return self.viscosity / density


@dataclass(frozen=True, eq=False)
class _Plastic(Elastic):
    """Hencky elasticity with a return map."""

    def admissible(self, strain: Tensor, swelling: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        """(strain, swelling) after the return map."""
        raise NotImplementedError

    def respond(self, deformation: Tensor, swelling: Tensor, around: Around, dt: float) -> Response:
        trial = _advanced(deformation, around.rate, dt)
        strain, vectors = laws.hencky_strain(trial)
        elastic, swelling = self.admissible(strain, swelling, dt)
        f = matmul(laws.exponential(elastic - strain, vectors), trial)
        return f, laws.hencky_stress(elastic, *self.lame), swelling

    def energy(self, deformation: Tensor, density: Tensor) -> Tensor:
        return laws.hencky_energy(laws.hencky_strain(deformation)[0], *self.lame)


@dataclass(frozen=True, eq=False)
class VonMises(_Plastic):
    """Plasticine: perfect plasticity; ``yield_stress`` in Pa is the one of uniaxial tension."""

    yield_stress: Modulus
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = {**ELASTIC, "yield_stress": NOT_NEGATIVE}

    def admissible(self, strain: Tensor, swelling: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return return_maps.von_mises(strain, self.lame[0], self.yield_stress), swelling


@dataclass(frozen=True, eq=False)
class HerschelBulkley(_Plastic):
    """Goop: viscoplastic flow; in simple shear at the rate g the stress is
    yield_stress / sqrt(3) + consistency g^exponent.

    ``yield_stress`` (uniaxial) in Pa, ``consistency`` in Pa s^exponent, ``exponent`` < 1 thins, > 1 thickens.
    """

    yield_stress: Modulus
    consistency: Modulus
    exponent: Modulus = 1.0
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = {
        **ELASTIC,
        "yield_stress": NOT_NEGATIVE,
        "consistency": NOT_NEGATIVE,
        "exponent": (0.0, float("inf"), "("),
    }

    def admissible(self, strain: Tensor, swelling: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        flow = (self.yield_stress, self.consistency, self.exponent)
        return return_maps.herschel_bulkley(strain, self.lame[0], *flow, dt), swelling


@dataclass(frozen=True, eq=False)
class DruckerPrager(_Plastic):
    """Sand: friction angle in degrees and ``cohesion`` in Pa (Mohr-Coulomb's)."""

    friction_angle: Modulus
    cohesion: Modulus = 0.0
    RANGES: ClassVar[dict[str, tuple[float, float, str]]] = {
        **ELASTIC,
        "friction_angle": (0.0, 90.0, "("),
        "cohesion": NOT_NEGATIVE,
    }

    def admissible(self, strain: Tensor, swelling: Tensor, dt: float) -> tuple[Tensor, Tensor]:
        return return_maps.drucker_prager(strain, swelling, *self.lame, self.friction_angle, self.cohesion)
