"""What moves the mesh inside an operator: chosen by name, or a function of the user's own, and checked."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sciml.constraints.mesh_mover import MONITORS, Box, folded, monge_ampere, unfolded
from sciml.errors import ConfigError, SolverError, did_you_mean
from sciml.operators.mesh_mover import MeshMover, pretrained_mover

Mover: TypeAlias = Callable[[Tensor, Box], Tensor]
"""From cell-centred fields ``(B, C, *n)`` to the corners of a moved mesh ``(B, *(n + 1), d)`` of a box."""


def classical(
    *,
    monitor: str = "curvature",
    share: float = 0.5,
    smoothing: float | None = None,
    iterations: int = 60,
    tolerance: float = 1e-2,
) -> Mover:
    """The mesh that equidistributes a monitor of the field, by the Monge-Ampère equation.

    Args:
        monitor: a name in ``MONITORS``.
        share, smoothing: of the monitor; smoothing over the longest side of the box.
        iterations, tolerance: of ``monge_ampere``; the tolerance is a hundredth of a cell here, because an operator on
            the mesh needs no exact equidistribution.

    A field too rough for its grid moves the mesh as far as its smoothed monitor says.

    Raises:
        ConfigError: no such monitor.
    """
    check_monitor_name(monitor)

    def move(u: Tensor, box: Box) -> Tensor:
        density = MONITORS[monitor](u, box, share=share, smoothing=smoothing, rough="ignore")
        mesh = monge_ampere(density, u.shape[2:], box, iterations=iterations, tolerance=tolerance, on_failure="ignore")
        return unfolded(mesh.corners, box)[0]

    return move


def check_monitor_name(monitor: str) -> None:
    """Raise ``ConfigError`` unless there is a monitor of that name."""
    if monitor not in MONITORS:
        raise ConfigError(f"unknown monitor {monitor!r}{did_you_mean(str(monitor), MONITORS)}")


def learned(
    *, monitor: str = "curvature", share: float = 0.5, smoothing: float | None = None, polish: int = 0
) -> Mover:
    """The same mesh by the network that comes with the package (``pretrained_mover``): one call and no iteration.

    Args:
        monitor, share, smoothing: as of ``classical``.
        polish: iterations of the classical solver that follow.

    Raises:
        ConfigError: no such monitor.
    """
    check_monitor_name(monitor)

    def move(u: Tensor, box: Box) -> Tensor:
        options = {"share": share, "smoothing": smoothing, "rough": "ignore"}
        return _shipped(box.dim, str(u.device)).move(u.float(), box, monitor=monitor, polish=polish, **options).corners

    return move


@lru_cache(maxsize=4)
def _shipped(dim: int, device: str) -> MeshMover:
    return pretrained_mover(dim, device=device)


MOVERS: dict[str, Callable[..., Mover]] = {"monge_ampere": classical, "learned": learned}
"""Movers by name: functions from options to movers. Beside them there is "none"."""


def make_mover(owner: str, mover: str | Mover, options: Mapping[str, Any]) -> Mover | None:
    """The mover of that name with these options, or the given one; None for "none".

    Raises:
        ConfigError: no such mover or option, or options for a mover that takes none.
    """
    known = (*MOVERS, "none")
    if isinstance(mover, str) and mover in MOVERS:
        allowed = list(inspect.signature(MOVERS[mover]).parameters)
        for key in options:
            if key not in allowed:
                raise ConfigError(f"{owner}: the mover {mover!r} has no option {key!r}{did_you_mean(key, allowed)}")
        return MOVERS[mover](**options)
    if isinstance(mover, str) and mover != "none":
        raise ConfigError(f"{owner}: unknown mover {mover!r}{did_you_mean(mover, known)}")
    if not isinstance(mover, str) and not callable(mover):
        raise ConfigError(
            f"{owner}: mover is {mover!r}; expected one of {', '.join(known)}, or a function (u, box) -> corners"
        )
    if options and mover != "none":
        raise ConfigError(f"{owner}: mover_options go with a mover by name; give the function its options yourself")
    return None if mover == "none" else mover


def name_of(mover: str | Mover) -> str:
    """What configurations and messages call it."""
    return mover if isinstance(mover, str) else getattr(mover, "__qualname__", type(mover).__name__)


def move(mover: Mover, name: str, field: Tensor, box: Box, *, frozen: bool) -> Tensor:
    """The corners of the mesh that ``mover`` makes of ``field (B, C, *n)``, checked; where the field is not finite, of
    the uniform one.

    Args:
        name: of the mover, for messages.
        frozen: no gradient reaches the mover, nor the field through the mesh.

    Raises:
        ConfigError: the mover gave something of another shape.
        SolverError: it gave positions that are not finite, or folded cells.
    """
    if field.dtype not in (torch.float32, torch.float64):
        field = field.float()
    # A rollout that diverges has lost its mesh too, and says so by its own values.
    finite = field.flatten(1).isfinite().all(1).reshape(-1, *[1] * (field.ndim - 1))
    field = torch.where(finite, field, 0.0)
    if isinstance(mover, nn.Module) and frozen:
        mover.to(field.device)  # it is no part of the operator, which moves its own modules
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen), _without_autocast(field.device):
        corners = mover(field, box)
    corners = getattr(corners, "corners", corners)
    expected = (len(field), *(n + 1 for n in field.shape[2:]), box.dim)
    if not isinstance(corners, Tensor) or tuple(corners.shape) != expected:
        given = f"shape {tuple(corners.shape)}" if isinstance(corners, Tensor) else type(corners).__name__
        raise ConfigError(f"the mover {name} gave corners of {given}; expected a tensor {expected}")
    corners = corners.to(field)
    check_mesh(name, corners)
    return corners


def check_mesh(name: str, corners: Tensor) -> None:
    """Raises ``SolverError`` that names the mover, for positions that are not finite and for folded cells."""
    bad = ~corners.detach().flatten(1).isfinite().all(1)
    if bad.any():
        raise SolverError(
            f"the mover {name} gave positions that are not finite, in sample {int(bad.nonzero()[0])} of the batch; "
            "check its monitor and its options, or use mover='none'"
        )
    cells = folded(corners.detach())
    if cells.any():
        first = int(cells.nonzero()[0])
        raise SolverError(
            f"the mover {name} folded {int(cells[first])} cells in sample {first} of the batch; scale its mesh back "
            "(sciml.constraints.mesh_mover.unfolded) before it is returned"
        )


def _without_autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, enabled=False)
