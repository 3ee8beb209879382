"""Trajectories of another format, one at a time, and what their format does not say."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sciml.datasets.particles.info import ParticleInfo
from sciml.datasets.particles.records import ParticleTrajectory
from sciml.datasets.particles.writer import ParticleWriter
from sciml.errors import ConfigError, DataError
from sciml.progress import Progress

MARGIN = 0.05
"""Of the largest extent: what is left around the particles where nobody says where the walls are."""


@dataclass(frozen=True)
class Told:
    """What the user says of a foreign file; None leaves it to the file, or to the default that a reader documents.

    ``interval``: seconds between frames; ``bounds``: (low, high) an axis; ``gravity``: a number an axis; ``kind``: name
    of the material, where there is one; ``problem``: what to call the set; ``allow_pickle``: see `restricted_pickle`.
    """

    interval: float | None = None
    bounds: Sequence[tuple[float, float]] | None = None
    gravity: Sequence[float] | None = None
    kind: str | None = None
    problem: str | None = None
    allow_pickle: bool = False


@dataclass(frozen=True)
class ParticleSource:
    """``cases`` trajectories that ``info`` describes; ``load(case)`` reads one."""

    info: ParticleInfo
    cases: int
    load: Callable[[int], ParticleTrajectory]

    def write(self, out: str | Path, *, overwrite: bool = False, progress: Progress | None = None) -> Path:
        """Write a particle file, one case in memory at a time; a conversion that was stopped continues."""
        progress = progress or Progress()
        with ParticleWriter(out, self.info, self.cases, overwrite=overwrite) as writer:
            missing = writer.missing()
            with progress.phase(f"convert to {out}", len(missing)):
                for case in missing:
                    writer.write(case, self.load(case))
                    progress.advance()
            return writer.finish()


def describe(
    told: Told,
    path: Path,
    *,
    dim: int,
    kinds: Sequence[str],
    interval: float | None = None,
    bounds: Sequence[Sequence[float]] | None = None,
    gravity: Sequence[float] | None = None,
    positions: Callable[[], Iterable[Tensor]],
    parameters: Sequence[str] = (),
    format_name: str,
) -> ParticleInfo:
    """The info from what the file says (the keywords) and what the user says, which goes first.

    ``positions()``: all positions ``(T, N, d)``, piece by piece, for bounds that neither says: then the box around
    them, wider by `MARGIN`. Raises `ConfigError` where the interval is missing or numbers do not fit the dimension.
    """
    interval = interval if told.interval is None else told.interval
    if interval is None:
        raise ConfigError(f"{path} does not say how far apart its frames are in time: give interval (--interval S)")
    extra = {"source": path.name, "format": format_name}
    bounds = bounds if told.bounds is None else told.bounds
    if bounds is None:
        bounds, extra["bounds"] = box_around(positions()), f"the particles' box and {MARGIN:.0%} around it"
    gravity = gravity if told.gravity is None else told.gravity
    if gravity is None:
        gravity, extra["gravity"] = (0.0,) * dim, "not known"
    for name, value in (("bounds", bounds), ("gravity", gravity)):
        if len(value) != dim:
            raise ConfigError(f"{path} is {dim}-D: {name} must have {dim} entries, got {len(value)} ({value})")
    return ParticleInfo(
        problem=told.problem or path.resolve().stem,
        dim=dim,
        interval=interval,
        bounds=bounds,
        gravity=gravity,
        kinds=named(kinds, told.kind),
        parameters=dict.fromkeys(parameters, ""),
        solver=f"converted from {format_name}",
        extra=extra,
    )


def named(kinds: Sequence[str], kind: str | None, fixed: str = "fixed") -> tuple[str, ...]:
    """``kinds`` with the only one that is not ``fixed`` called ``kind``. Raises `ConfigError` if there are several."""
    free = [name for name in kinds if name != fixed]
    if kind is None or free == [kind]:
        return tuple(kinds)
    if len(free) != 1:
        raise ConfigError(f"kind={kind!r} names one kind of particles, there are {len(free)}: {free}; leave it out")
    return tuple(kind if name == free[0] else name for name in kinds)


def box_around(positions: Iterable[Tensor]) -> list[tuple[float, float]]:
    """(low, high) an axis around all positions, wider by `MARGIN` of the largest extent on each side."""
    low = high = None
    for piece in positions:
        least, most = piece.amin(dim=(0, 1)).double(), piece.amax(dim=(0, 1)).double()
        low = least if low is None else torch.minimum(low, least)
        high = most if high is None else torch.maximum(high, most)
    if low is None or high is None or not torch.isfinite(high - low).all():
        raise DataError("no finite positions to put a box around: give bounds (--bounds), or mend the file")
    margin = MARGIN * float((high - low).max()) or 1.0  # particles that all lie in one point
    return [(float(a) - margin, float(b) + margin) for a, b in zip(low, high, strict=True)]
