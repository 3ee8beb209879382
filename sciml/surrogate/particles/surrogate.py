"""The surrogate of particles: a stepper of few points, an upsampler that brings all others along, units and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sciml.errors import DataError, SolverError
from sciml.operators.particles.graph import check_particles, particle_graph
from sciml.operators.stored import ParameterGroup
from sciml.surrogate.particles.companions import Companions, Following, choose
from sciml.surrogate.particles.normaliser import ParticleNormaliser
from sciml.surrogate.particles.scene import Scene
from sciml.surrogate.ranges import warn_out_of_range

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from sciml.operators.particles.base import ParticleOperator
    from sciml.operators.particles.upsampler import KernelUpsampler


class Networks(nn.Module):
    """What is learned: the ``stepper``, and the ``upsampler`` where not all points are stepped."""

    name = "stepper"

    def __init__(self, stepper: ParticleOperator, upsampler: KernelUpsampler | None) -> None:
        super().__init__()
        self.stepper = stepper
        self.upsampler = upsampler

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of the stepper, and one of the upsampler."""
        groups = self.stepper.parameter_groups()
        if self.upsampler is not None:
            groups.append(ParameterGroup("upsampler", list(self.upsampler.parameters())))
        return groups


@dataclass(frozen=True)
class Frame:
    """One frame of a rollout: all points ``(N, d)``, and those ``(n, d)`` that were stepped."""

    position: Tensor
    sparse: Tensor


class ParticleSurrogate(nn.Module):
    """Steps scenes of particles from frame to frame.

    A step: frame differences -> velocity and accelerations, normalised -> graph of the newest positions -> stepper ->
    acceleration a -> ``x(t + 1) = x(t) + (x(t) - x(t - 1)) + a`` (semi-implicit Euler in units of frames); free
    particles that would leave the box are put on its wall, fixed ones go where they are told. Training goes the same
    way.

    Args:
        stepper: the operator; its ``history`` frame differences are read, its ``radius`` connects the particles.
        upsampler: brings points along that are not stepped; None: all points are stepped.
        statistics: of ``ParticleNormaliser``.
        problem: registry name of the problem, or "particles".
        kinds: name of each kind of particle.
        parameters: name -> unit of the material parameters, the columns of ``Scene.parameters``.
        points: how many particles of a scene are stepped by default; None: all.
        sampling: how they are chosen: ``"farthest"`` or ``"random"``.
        anchor_every: frames after which the points that are not stepped look for their neighbours anew; None: never.
        correct_every: frames for which the learned correction of these points is held (``KernelUpsampler.held``).
        ranges: least and greatest value of each material parameter in training.
        provenance: what the model card says about the training.
    """

    kind = "particles"

    def __init__(
        self,
        stepper: ParticleOperator,
        upsampler: KernelUpsampler | None,
        statistics: Mapping[str, Any],
        *,
        problem: str,
        kinds: Sequence[str],
        parameters: Mapping[str, str],
        points: int | None,
        sampling: str = "farthest",
        anchor_every: int | None = None,
        correct_every: int = 1,
        ranges: Mapping[str, Sequence[float]] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.operator = Networks(stepper, upsampler)
        self.normaliser = ParticleNormaliser(statistics)
        self.problem_name, self.kinds, self.parameter_units = problem, tuple(kinds), dict(parameters)
        self.points, self.sampling, self.anchor_every = points, sampling, anchor_every
        self.correct_every = correct_every
        self.ranges = {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.provenance = dict(provenance or {})

    @property
    def stepper(self) -> ParticleOperator:
        return self.operator.stepper

    @property
    def upsampler(self) -> KernelUpsampler | None:
        return self.operator.upsampler

    @property
    def dim(self) -> int:
        return self.stepper.dim

    @property
    def history(self) -> int:
        """Frame differences that a step reads: a scene has one frame more."""
        return self.stepper.history

    @property
    def interval(self) -> float:
        """Seconds of a step."""
        return self.normaliser.interval

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.operator.parameters())
        stepped = "all particles" if self.points is None else f"{self.points} points"
        return (
            f"ParticleSurrogate({self.problem_name!r}, {self.dim}D, {self.stepper.name} of {count:,} parameters, steps "
            f"{stepped} by {self.interval:g} s)"
        )

    # ------------------------------------------------------------------------------------------------------- one step

    def graph(self, scene: Scene) -> Data:
        """What the stepper reads of a scene; its numbers are not checked (``check`` does)."""
        gravity = scene.gravity[scene.batch]
        return particle_graph(
            scene.position,
            self.normaliser.motion(scene.displacements, gravity),
            radius=self.stepper.radius,
            kind=scene.kind,
            parameters=self.normaliser.parameters_of(scene.parameters),
            fixed=scene.fixed,
            batch=scene.batch,
            bounds=scene.bounds,
            gravity=scene.gravity,
            check_values=False,
        )

    def forward(self, scene: Scene) -> Tensor:
        """The normalised acceleration ``(N, d)``."""
        return self.stepper(self.graph(scene))

    def moved(self, scene: Scene, normalised: Tensor, prescribed: Tensor | None = None) -> Tensor:
        """Where the particles are a frame later, ``(N, d)``, given their normalised acceleration.

        ``prescribed (N, d)``: where the fixed particles go (only their rows are read); by default they keep their
        velocity.
        """
        velocity = scene.displacements[-1]
        acceleration = self.normaliser.acceleration(normalised.to(velocity.dtype), scene.gravity[scene.batch])
        free = scene.position + velocity + acceleration
        if scene.bounds is not None:
            low, high = scene.bounds[scene.batch].unbind(-1)
            free = free.clamp(low, high)
        told = scene.position + velocity if prescribed is None else prescribed
        return torch.where(scene.fixed[:, None], told, free)

    @torch.no_grad()
    def step(self, scene: Scene, prescribed: Tensor | None = None) -> Scene:
        """The scene one frame later; all of its particles are stepped.

        Raises ``DataError`` as ``check`` does.
        """
        self.check(scene)
        return scene.moved(self.moved(scene, self(scene), prescribed))

    # -------------------------------------------------------------------------------------------------------- rollouts

    def rollout(self, scene: Scene, steps: int, prescribed: Tensor | None = None) -> Iterator[Tensor]:
        """The positions ``(N, d)`` of the following frames, one after the other; all particles are stepped.

        Nothing is kept, so memory does not grow with the length. ``prescribed (steps, N, d)``: where the fixed
        particles go.

        Raises ``SolverError`` with the step at which the positions are no longer finite.
        """
        everything = torch.arange(len(scene), device=scene.batch.device)
        for frame in self.dense_rollout(scene, steps, stepped=everything, prescribed=prescribed):
            yield frame.position

    @torch.no_grad()
    def dense_rollout(
        self,
        scene: Scene,
        steps: int,
        *,
        stepped: Tensor | None = None,
        seed: int = 0,
        prescribed: Tensor | None = None,
    ) -> Iterator[Frame]:
        """All particles of a scene, of which few are stepped and the others brought along.

        ``stepped``: sorted numbers of those that are; by default ``choose(scene, seed)``. ``prescribed (steps, N, d)``:
        where the fixed particles go; by default they keep their velocity.

        Raises ``SolverError`` as ``rollout`` does.
        """
        stepped = self.choose(scene, seed) if stepped is None else stepped
        self.check(scene)
        self.warn(scene)
        sparse, dense = scene.select(stepped), scene.position
        drift = torch.where(scene.fixed[:, None], scene.displacements[-1], 0)
        following = self._following(scene, stepped)
        for number in range(steps):
            told = dense + drift if prescribed is None else torch.where(scene.fixed[:, None], prescribed[number], dense)
            sparse = self.step(sparse, told[stepped])
            if not bool(torch.isfinite(sparse.position).all()):
                raise SolverError(
                    f"the rollout has diverged at step {number + 1} of {steps}: positions are no longer finite, as "
                    "happens far from the scenes of the training"
                )
            if following is None:
                dense = sparse.position
            else:
                dense = self._contained(scene, following.moved(sparse.position, told))
                following.arrived(sparse.position, dense)
            yield Frame(dense, sparse.position)

    @torch.no_grad()
    def upsampled(
        self, scene: Scene, frames: Iterable[Tensor], stepped: Tensor, prescribed: Tensor | None = None
    ) -> Iterator[Tensor]:
        """All particles ``(N, d)`` of a scene for given frames ``(n, d)`` of those stepped, from the solver, say.

        ``prescribed (steps, N, d)``: where the fixed particles are; by default they keep their velocity.
        """
        dense = scene.position
        drift = torch.where(scene.fixed[:, None], scene.displacements[-1], 0)
        following = self._following(scene, stepped)
        for number, sparse in enumerate(frames):
            if following is None:
                yield sparse
                continue
            told = dense + drift if prescribed is None else torch.where(scene.fixed[:, None], prescribed[number], dense)
            dense = self._contained(scene, following.moved(sparse, told))
            following.arrived(sparse, dense)
            yield dense

    def choose(self, scene: Scene, seed: int = 0) -> Tensor:
        """The particles that are stepped by default: ``points`` of every scene."""
        return choose(scene, self.points, self.sampling, seed)

    def _following(self, scene: Scene, stepped: Tensor) -> Following | None:
        if len(stepped) == len(scene):
            return None
        if self.upsampler is None:
            raise DataError(
                f"{len(stepped)} of {len(scene)} particles are to be stepped, but this surrogate was trained without "
                "an upsampler: step all of them"
            )
        start = scene.position[stepped], scene.position
        return Following(Companions(self.upsampler, scene, stepped), *start, self.anchor_every, self.correct_every)

    def _contained(self, scene: Scene, position: Tensor) -> Tensor:
        if scene.bounds is None:
            return position
        low, high = scene.bounds[scene.batch].unbind(-1)
        return torch.where(scene.fixed[:, None], position, position.clamp(low, high))

    # ---------------------------------------------------------------------------------------------------------- checks

    def check(self, scene: Scene) -> None:
        """Raise ``DataError`` for a scene that this surrogate cannot read: of another shape, empty, with numbers that
        are not finite, or with free particles outside the box by more than 1e-4 of it.
        """
        frames, _, dim = scene.history.shape
        wrong = [
            (dim, self.dim, "axes", "the surrogate was trained in that many dimensions"),
            (frames, self.history + 1, "frames", "the newest last: scene_of(trajectory, info, slice(0, n))"),
            (scene.parameters.shape[1], len(self.parameter_units), "parameters", ", ".join(self.parameter_units)),
        ]
        for given, expected, what, hint in wrong:
            if given != expected:
                raise DataError(f"the scene has {given} {what}; expected {expected} ({hint})")
        if not len(scene):
            raise DataError("the scene is empty: it has no particles")
        free = ~scene.fixed
        slack = 0.0 if scene.bounds is None else 1e-4 * (scene.bounds[..., 1:] - scene.bounds[..., :1])
        bounds = None if scene.bounds is None else scene.bounds + slack * scene.bounds.new_tensor([-1.0, 1.0])
        check_particles(
            scene.position[free],
            scene.displacements[:, free].transpose(0, 1),
            scene.parameters[free],
            scene.batch[free],
            scene.position.new_tensor([-torch.inf, torch.inf]).expand(len(scene.gravity), dim, 2)
            if bounds is None
            else bounds,
            scene.gravity,
        )
        if int(scene.kind.min()) < 0 or int(scene.kind.max()) >= len(self.kinds):
            raise DataError(
                f"the scene has particles of kind {int(scene.kind.min())} to {int(scene.kind.max())}; expected 0 to "
                f"{len(self.kinds) - 1}: {', '.join(self.kinds)}"
            )

    def warn(self, scene: Scene) -> None:
        """Warn (``OutOfRangeWarning``) of material parameters outside those of the training."""
        free = scene.parameters[~scene.fixed]
        if len(free):
            seen = {
                name: (float(free[:, n].min()), float(free[:, n].max())) for n, name in enumerate(self.parameter_units)
            }
            known = {name: bounds for name, bounds in self.ranges.items() if name in seen}
            warn_out_of_range(seen, known, stacklevel=5)

    def save(self, directory: Path | str) -> Path:
        """Write the surrogate without pickles; return the directory."""
        from sciml.surrogate.particles.storage import save

        return save(self, directory)
