"""Problems that hold bands of a dimensionless number out of training, for the split ``extrapolate``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from sciml.problems.base import Problem
from sciml.problems.cases import Sample


class BandedProblem(Problem):
    """Adds the subset ``outside``: as ``all``, but out of every band; and one hard subset per band, inside it.

    ``bands``: hard subset -> (low, high) of the number that ``band_value`` computes from a case. Cases are drawn again
    until they lie where the subset asks for. Other hard subsets of a problem are drawn as ``all``.
    """

    bands: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType({})
    band_subsets: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    """Band -> the subsets that reach into it, where not all do."""

    @abstractmethod
    def band_value(self, band: str, case: Mapping[str, float]) -> float:
        """The number that the band bounds."""

    def sample(
        self, n: int, subset: str = "all", seed: int = 0, resolution: int | None = None, frames: int | None = None
    ) -> Sample:
        """Draw ``n`` cases of a subset, of ``all``, of a band, or ``outside`` of all bands."""
        self.check_subset(n, subset)
        resolution = self.resolution if resolution is None else resolution
        generator = torch.Generator().manual_seed(seed)
        return Sample(self.draw_all(n, subset, generator, resolution), self.labels(n, subset))

    def draw_all(self, n: int, subset: str, generator: torch.Generator, resolution: int) -> dict[str, Tensor]:
        """The parameters ``(n,)`` of the cases."""
        cases = []
        for name in self.case_subsets(n, subset):
            case = self.draw(name, generator, resolution)
            while not self.belongs(case, subset):
                case = self.draw(name, generator, resolution)
            cases.append(case)
        return {
            p.name: torch.tensor([case.get(p.name, p.default) for case in cases], dtype=torch.float64)
            for p in self.parameters
        }

    def labels(self, n: int, subset: str) -> tuple[str, ...]:
        """The subset that each case of a sample is said to be of."""
        return (subset,) * n if subset in self.hard_subsets else self.case_subsets(n, subset)

    def belongs(self, case: Mapping[str, float], subset: str) -> bool:
        """Whether a drawn case lies where the subset asks for: inside its band, or outside of all."""
        if subset == "outside":
            return not any(self._inside(case, band) for band in self.bands)
        return subset not in self.bands or self._inside(case, subset)

    def check_subset(self, n: int, subset: str) -> None:
        """Raise ``ConfigError`` for an unknown subset or for no cases."""
        super().check_subset(n, "all" if subset == "outside" else subset)

    def case_subsets(self, n: int, subset: str) -> tuple[str, ...]:
        """What is varied in each case; a band is cut out of the subsets that can lie in it."""
        if subset in self.band_subsets:
            names = self.band_subsets[subset]
            return tuple(names[case % len(names)] for case in range(n))
        return super().case_subsets(n, subset if subset in self.subsets else "all")

    def _inside(self, case: Mapping[str, float], band: str) -> bool:
        low, high = self.bands[band]
        return low <= self.band_value(band, case) <= high
