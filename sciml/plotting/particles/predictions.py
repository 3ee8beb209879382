"""Reading the ``predictions.npz`` of a particle run: its keys, their checks, and the cases that are drawn.

For n cases it holds ``bounds (d, 2)`` of the box in metres, ``interval`` between frames in seconds, ``kinds`` (names),
``cases (n,)`` (numbers) and ``subsets (n,)``, if it likes ``gravity (d,)``; for k = 0..n-1 ``truth_k``, ``dense_k
(T, N, d)`` and ``sparse_k (T, n_s, d)`` positions, ``sparse_index_k (n_s,)`` the rows of the sparse points among the N,
``kind_k (N,)`` an index into ``kinds``, ``fixed_k (N,)`` whether a particle moves as prescribed; and ``curve_<name>
(frames,)`` for each of ``CURVES``, errors relative to displacement, the mean over all test cases. T and N may differ
from case to case.
"""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting.particles.clouds import Scene, check_scene

COMMON = ("bounds", "interval", "kinds", "cases", "subsets")
OF_A_CASE = ("truth", "dense", "sparse", "sparse_index", "kind", "fixed")
CURVES = ("sparse", "dense", "upsampled_truth", "constant_velocity", "constant_acceleration")
AGAIN = "run 'sciml evaluate' to write it again"


@dataclass(frozen=True)
class ParticleCase:
    """A held-out case: positions in metres, ``truth`` and ``dense (T, N, d)``, ``sparse (T, n_s, d)`` and the rows
    ``sparse_index (n_s,)`` of its points among the N; ``kind``, ``fixed (N,)``; ``given``: the number of frames that
    the rollout was given.
    """

    name: str
    title: str
    truth: NDArray[Any]
    dense: NDArray[Any]
    sparse: NDArray[Any]
    sparse_index: NDArray[Any]
    kind: NDArray[Any]
    fixed: NDArray[Any]
    given: int

    @property
    def thinned(self) -> bool:
        """The model stepped some of the points only, so that sparse and dense differ."""
        return len(self.sparse_index) < self.truth.shape[1]


@dataclass(frozen=True)
class ParticlePredictions:
    """What a file holds beside its cases, which are read one at a time: they may be large."""

    path: Path
    scene: Scene
    numbers: tuple[int, ...]
    subsets: tuple[str, ...]
    curves: Mapping[str, NDArray[Any]]
    """Name (of ``CURVES``) -> error relative to displacement ``(T,)``, the mean over all test cases."""

    def __len__(self) -> int:
        return len(self.numbers)

    def cases(self) -> Iterator[ParticleCase]:
        """The cases in the order of the file. Raises DataError for arrays that do not fit."""
        for position in range(len(self)):
            yield self.case(position)

    def case(self, position: int) -> ParticleCase:
        """The case at ``position`` in the file, from 0. Raises DataError for arrays that do not fit."""
        a = _read(self.path, [f"{key}_{position}" for key in OF_A_CASE])
        truth, dense, sparse, index, kind, fixed = (a[f"{key}_{position}"] for key in OF_A_CASE)
        where, dim = f"{self.path.name}, case {position}", self.scene.dim
        if truth.ndim != 3 or truth.shape[2] != dim or len(truth) < 2 or truth.shape[1] < 1:
            raise DataError(
                f"{where}: truth has shape {truth.shape}; expected (frames, particles, {dim}), at least 2 frames"
            )
        frames, count, _ = truth.shape
        expected = {
            "dense": (dense, truth.shape),
            "sparse": (sparse, (frames, len(index) if index.ndim else 0, dim)),
            "kind": (kind, (count,)),
            "fixed": (fixed, (count,)),
        }
        for key, (array, shape) in expected.items():
            if array.shape != shape:
                raise DataError(f"{where}: {key} has shape {array.shape}; expected {shape}")
        if not np.isfinite(truth).all():
            raise DataError(f"{where}: the truth is not finite, so nothing can be compared with it")
        for key, array, top in (("sparse_index", index, count), ("kind", kind, len(self.scene.kinds))):
            if (
                array.ndim != 1
                or array.dtype.kind not in "iu"
                or not len(array)
                or array.min() < 0
                or array.max() >= top
            ):
                raise DataError(f"{where}: {key} must be whole numbers (n,) from 0 to {top - 1}")
        number, subset = self.numbers[position], self.subsets[position]
        return ParticleCase(
            name="_".join(word for word in (subset, f"case{number}") if word),
            title=", ".join(word for word in (subset, f"test case {number}") if word),
            truth=truth,
            dense=dense,
            sparse=sparse,
            sparse_index=index,
            kind=kind,
            fixed=fixed.astype(bool),
            given=given_frames(truth[:, index], sparse),
        )


def has_particles(path: Path) -> bool:
    """Whether a ``predictions.npz`` is that of a particle run; False for a file that cannot be opened."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "truth_0.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def read_particles(path: str | Path) -> ParticlePredictions:
    """The scene, the curves and the numbers of the cases. Raises DataError when a key is missing or does not fit."""
    path = Path(path)
    a = _read(path, [*COMMON, *(f"curve_{name}" for name in CURVES)], optional=("gravity",))
    numbers, subsets = (tuple(np.atleast_1d(a[key]).tolist()) for key in ("cases", "subsets"))
    _read(path, (), needed=[f"{key}_{position}" for position in range(len(numbers)) for key in OF_A_CASE])
    if not numbers or len(numbers) != len(subsets):
        raise DataError(f"{path.name}: {len(numbers)} cases and {len(subsets)} subsets; expected one subset a case")
    curves = {name: a[f"curve_{name}"] for name in CURVES}
    if len({curve.shape for curve in curves.values()}) > 1 or curves["dense"].ndim != 1 or not len(curves["dense"]):
        shapes = ", ".join(f"{name} {curve.shape}" for name, curve in curves.items())
        raise DataError(f"{path.name}: curves have shapes {shapes}; expected one (frames,) for all")
    kinds = tuple(str(kind) for kind in np.atleast_1d(a["kinds"]))
    scene = check_scene(a["bounds"], a["interval"], kinds, gravity=a.get("gravity"), where=path.name)
    return ParticlePredictions(path, scene, tuple(map(int, numbers)), tuple(map(str, subsets)), curves)


def given_frames(truth: NDArray[Any], sparse: NDArray[Any]) -> int:
    """The leading frames in which a rollout is the truth itself, at least 1: those it was given."""
    same = (truth == sparse).all(axis=(1, 2))
    return max(1, len(same) if same.all() else int(np.argmin(same)))


def _read(
    path: Path, keys: Sequence[str], *, optional: Sequence[str] = (), needed: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """The arrays ``keys``, and those of ``optional`` that are there; ``needed`` must be there but is not read."""
    try:
        # Opened here: numpy leaves its own handle open when the archive turns out to be damaged.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            if missing := [key for key in (*keys, *needed) if key not in file.files]:
                raise DataError(f"{path} lacks {', '.join(missing)}; {AGAIN}")
            return {key: file[key] for key in (*keys, *optional) if key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}; {AGAIN}") from None
