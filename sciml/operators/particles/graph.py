"""What a particle operator reads: positions, velocities and properties of particles, and who is near whom."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch_geometric.data import Data

Vectors = Tensor | Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]]


def particle_graph(
    position: Tensor,
    velocity: Tensor,
    *,
    radius: float,
    kind: Tensor | None = None,
    parameters: Tensor | None = None,
    fixed: Tensor | None = None,
    batch: Tensor | None = None,
    bounds: Vectors | None = None,
    gravity: Vectors | None = None,
    edge_index: Tensor | None = None,
    check_values: bool = True,
) -> "Data":
    """Particles of one scene or several as the graph that a particle operator steps.

    Args:
        position: ``(N, d)`` in metres.
        velocity: the last ``H`` velocities ``(N, H, d)``, oldest first, normalised by the caller.
        radius: particles nearer than this are neighbours, in metres.
        kind: ``(N,)`` whole numbers; without it all are of kind 0.
        parameters: ``(N, P)`` of the material, standardised by the caller.
        fixed: ``(N,)`` bool, particles that move as prescribed.
        batch: ``(N,)`` the scene of each particle, sorted; without it there is one scene.
        bounds: low and high of the box of each scene ``(B, d, 2)``, or of all of them ``(d, 2)``, in metres; infinite
            where there is no wall, and everywhere without ``bounds``.
        gravity: ``(B, d)`` or ``(d,)`` in m/s^2; without it zero.
        edge_index: ``(2, E)`` source and receiver of every pair, if they are known already; else the pairs within
            ``radius`` in the same scene are searched (both directions, without loops).
        check_values: whether to look for numbers that are not finite and particles outside their box. Positions with
            noise, or predicted ones, may lie a little outside.

    Returns:
        A ``Data`` with ``pos``, ``velocity``, ``kind``, ``parameters``, ``fixed``, ``batch``, ``bounds (B, d, 2)``,
        ``gravity (B, d)``, ``edge_index`` and ``num_graphs``, floating point numbers in the type of ``position``.

    Raises:
        ConfigError: the radius is not a positive number.
        DataError: a shape is wrong, a number is not finite, a particle is outside its box.
    """
    from torch_geometric.data import Data  # 1.4 s, and only needed here

    if not 0 < radius < float("inf"):
        raise ConfigError(f"radius is {radius!r}; expected a positive number of metres")
    if position.ndim != 2 or not position.is_floating_point():
        raise DataError(f"position is {_described(position)}; expected floating point numbers of shape (N, d)")
    n, dim = position.shape
    if velocity.ndim != 3 or velocity.shape[0] != n or velocity.shape[2] != dim:
        raise DataError(f"velocity is {_described(velocity)}; expected ({n}, history, {dim}), oldest first")
    kind = _per_particle("kind", kind, torch.zeros(n, dtype=torch.int64), position)
    fixed = _per_particle("fixed", fixed, torch.zeros(n, dtype=torch.bool), position)
    batch = _per_particle("batch", batch, torch.zeros(n, dtype=torch.int64), position)
    if parameters is None:
        parameters = position.new_zeros(n, 0)
    if parameters.ndim != 2 or len(parameters) != n:
        raise DataError(f"parameters are {_described(parameters)}; expected ({n}, number of parameters)")
    if n and (int(batch[0]) < 0 or bool((batch[1:] < batch[:-1]).any())):
        raise DataError("batch is not sorted; expected scene numbers 0, 0, ..., 1, 1, ... that never fall")
    scenes = int(batch[-1]) + 1 if n else 1
    bounds = _per_scene("bounds", bounds, (dim, 2), (-float("inf"), float("inf")), position)
    gravity = _per_scene("gravity", gravity, (dim,), 0.0, position)
    scenes = max(scenes, len(bounds), len(gravity))
    for name, value in (("bounds", bounds), ("gravity", gravity)):
        if len(value) not in (1, scenes):
            raise DataError(f"{name} are given for {len(value)} scenes; expected {scenes}, or one for all")
    bounds, gravity = bounds.expand(scenes, -1, -1).contiguous(), gravity.expand(scenes, -1).contiguous()
    if check_values:
        check_particles(position, velocity, parameters, batch, bounds, gravity)
    if edge_index is None:
        from sciml.points import radius_pairs

        edge_index = radius_pairs(position.detach(), radius, batch=batch)
    elif edge_index.ndim != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise DataError(f"edge_index is {_described(edge_index)}; expected int64 of shape (2, number of pairs)")
    return Data(
        pos=position,
        velocity=velocity.to(position),
        kind=kind,
        parameters=parameters.to(position),
        fixed=fixed,
        batch=batch,
        bounds=bounds,
        gravity=gravity,
        edge_index=edge_index,
        num_graphs=scenes,
    )


def check_particles(
    position: Tensor, velocity: Tensor, parameters: Tensor, batch: Tensor, bounds: Tensor, gravity: Tensor
) -> None:
    """Raise ``DataError`` for numbers that are not finite, empty boxes and particles outside their box."""
    for name, value in (("positions", position), ("velocities", velocity), ("parameters", parameters)):
        bad = ~value.detach().flatten(1).isfinite().all(1)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise DataError(
                f"{int(bad.sum())} of {len(value)} particles have {name} that are not finite; the first is particle "
                f"{first}: {value[first].tolist()}"
            )
    if not bool(gravity.isfinite().all()):
        raise DataError(f"gravity is {gravity.tolist()}; expected finite numbers in m/s^2")
    low, high = bounds.unbind(-1)
    if not bool((low < high).all()):
        raise DataError(f"bounds are {bounds.tolist()}; expected low < high along every axis")
    rounding = 16 * torch.finfo(position.dtype).eps * bounds.abs().nan_to_num(posinf=0.0).amax(-1)
    outside = (position.detach() < (low - rounding)[batch]) | (position.detach() > (high + rounding)[batch])
    outside = outside.any(1)
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise DataError(
            f"{int(outside.sum())} of {len(position)} particles are outside their box; the first is particle {first} "
            f"at {position[first].tolist()}, its box is {bounds[batch[first]].tolist()} (low, high along each axis)"
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _per_particle(name: str, given: Tensor | None, default: Tensor, position: Tensor) -> Tensor:
    if given is None:
        return default.to(position.device)
    if given.shape != default.shape or given.is_floating_point() or given.is_complex():
        raise DataError(f"{name} is {_described(given)}; expected {_described(default)}")
    return given.to(device=position.device, dtype=default.dtype)


def _per_scene(
    name: str, given: Vectors | None, shape: tuple[int, ...], default: float | tuple[float, float], position: Tensor
) -> Tensor:
    if given is None:
        return torch.as_tensor(default, dtype=position.dtype, device=position.device).expand(1, *shape)
    value = torch.as_tensor(given, dtype=position.dtype, device=position.device)
    if value.shape[-len(shape) :] != shape or value.ndim not in (len(shape), len(shape) + 1):
        raise DataError(f"{name} are {_described(value)}; expected {shape} or one such for each scene")
    return value.view(-1, *shape)
