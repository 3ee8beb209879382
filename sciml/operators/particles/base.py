"""What the operators on particles share: the constructor's arguments, checks of the input, exact symmetry."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.errors import ConfigError, DataError, did_you_mean
from sciml.operators.particles.scenes import Scenes
from sciml.operators.particles.symmetry import SYMMETRIES, averaged
from sciml.operators.stored import Stored, check_positive


class ParticleOperator(Stored):
    """A network from the last velocities of particles to their accelerations, both normalised.

    A subclass sets ``name`` (its key in ``PARTICLE_OPERATORS``), calls ``super().__init__`` first, and defines
    ``accelerations(scenes)``.

    Args:
        dim: of space, 2 or 3.
        radius: within which particles are neighbours, in metres: the graphs are made with the same.
        history: number of velocities of each particle.
        n_kinds: number of kinds of particles, told apart by a learned vector.
        n_parameters: material parameters of each particle.
        symmetry: which of the signed permutations of the axes the output follows exactly, by averaging over them:
            ``"none"``, those that leave the gravity of the scene as it is (``"gravity"``), or ``"all"``, with gravity
            turned along. It costs as many passes as there are such (see ``symmetry.py``). It is exact for what the
            network sees: normalise alike the components that are exchanged, and with mean 0 those that are reflected.

    Raises:
        ConfigError: an argument is out of range.
    """

    dims: ClassVar[tuple[int, ...]] = (2, 3)

    @classmethod
    def family(cls) -> Mapping[str, type[Stored]]:
        from sciml.operators import PARTICLE_OPERATORS  # the registry imports this module

        return PARTICLE_OPERATORS

    def __init__(
        self, dim: int, *, radius: float, history: int, n_kinds: int, n_parameters: int, symmetry: str = "none"
    ) -> None:
        super().__init__()
        if dim not in self.dims:
            raise ConfigError(f"{self.name}: dim is {dim!r}; expected 2 or 3")
        check_number(self.name, "radius", radius)
        check_positive(self.name, history=history, n_kinds=n_kinds)
        if not isinstance(n_parameters, int) or n_parameters < 0:
            raise ConfigError(f"{self.name}: n_parameters is {n_parameters!r}; expected 0 or more")
        if symmetry not in SYMMETRIES:
            raise ConfigError(f"{self.name}: unknown symmetry {symmetry!r}{did_you_mean(str(symmetry), SYMMETRIES)}")
        self.dim = dim
        self.radius = float(radius)
        self.history = history
        self.n_kinds = n_kinds
        self.n_parameters = n_parameters
        self.symmetry = symmetry

    def forward(self, data: Any) -> Tensor:
        """Normalised accelerations ``(N, d)`` of the particles of a ``particle_graph``."""
        if not torch.compiler.is_compiling():
            self.check_input(data)
        return averaged(self.accelerations, Scenes.of(data), self.symmetry)

    @abstractmethod
    def accelerations(self, scenes: Scenes) -> Tensor:
        """Normalised accelerations ``(N, d)``."""

    def check_input(self, data: Any) -> None:
        """Compare the graph with what the operator was made for; ``forward`` does, unless it is being compiled.

        Raises:
            DataError: something is missing or has a wrong shape or type.
        """
        needed = ("pos", "velocity", "kind", "parameters", "fixed", "batch", "bounds", "gravity", "edge_index")
        missing = [name for name in needed if not isinstance(getattr(data, name, None), Tensor)]
        if missing:
            raise DataError(f"{self.name}: the graph lacks {', '.join(missing)}; make it with particle_graph")
        n, d, scenes = len(data.pos), self.dim, len(data.gravity)
        expected = {
            "pos": (n, d),
            "velocity": (n, self.history, d),
            "kind": (n,),
            "parameters": (n, self.n_parameters),
            "fixed": (n,),
            "batch": (n,),
            "bounds": (scenes, d, 2),
            "gravity": (scenes, d),
        }
        for name, shape in expected.items():
            if getattr(data, name).shape != shape:
                raise DataError(f"{self.name}: {name} has shape {tuple(getattr(data, name).shape)}; expected {shape}")
        dtype = next(self.parameters()).dtype
        if data.pos.dtype != dtype:
            raise DataError(f"{self.name}: positions are {data.pos.dtype}, the operator's weights {dtype}; convert one")
        if n and not 0 <= int(data.kind.min()) <= int(data.kind.max()) < self.n_kinds:
            raise DataError(
                f"{self.name}: kinds reach from {int(data.kind.min())} to {int(data.kind.max())}; expected 0 to "
                f"{self.n_kinds - 1} (n_kinds is {self.n_kinds})"
            )
        if data.edge_index.numel() and (int(data.edge_index.max()) >= n or int(data.edge_index.min()) < 0):
            raise DataError(f"{self.name}: edge_index names particles outside 0 to {n - 1}")


def check_number(owner: str, name: str, value: Any) -> None:
    """Raise ConfigError unless the value is a positive finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"{owner}: {name} is {value!r}; expected a positive number")
