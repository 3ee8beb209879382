"""CPU time to read a random training window, by storage layout, beside the limit of a plain ``np.memmap``.

python benchmarks/storage_layouts.py

All rows hold the same smooth float32 numbers, 100 trajectories x 20 frames x 64 x 64 x 3, and gather batches of 32
random windows into one new buffer a batch. CPU time, not wall time, so that other work on the machine hardly matters;
rounds of the layouts are interleaved and the best round counts. The page cache is warm.

Gate: `TrajectoryWindows` (all channels, with parameters and times) at most 2 times the plain memory map.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from harness import report

from sciml.datasets import DatasetInfo, DatasetWriter, FieldInfo, TrajectoryWindows

GATE = 2.0
BATCH = 32
Read = Callable[[np.ndarray, np.ndarray], Any]  # (cases, first frames) of a batch -> the batch


def smooth_data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """(N, T, X, Y, 3): a few random waves, so that compression sees something like a flow."""
    n, t, x, y, c = shape
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * (np.arange(x)[:, None] / x + 2 * np.arange(y)[None, :] / y)
    angle = phase + rng.uniform(0, 2 * np.pi, (n, 1, 1, 1)) + np.linspace(0, 3, t)[None, :, None, None]
    data = np.stack([np.sin(k * angle) / k for k in range(1, c + 1)], axis=-1).astype(np.float32)
    return data + 1e-3 * rng.standard_normal(shape, dtype=np.float32)


def write_sciml(path: Path, data: np.ndarray) -> None:
    """The file that `TrajectoryWindows` reads."""
    n, t, x, y, _ = data.shape
    info = DatasetInfo(
        "benchmark",
        (FieldInfo("velocity", 2, "m/s", 1), FieldInfo("pressure", 1, "Pa", 0)),
        {"reynolds": "1"},
        (x, y),
        t,
        {f"{axis}_{end}": "periodic" for axis in "xy" for end in ("low", "high")},
    )
    with DatasetWriter(path, info, n, {"reynolds": np.arange(n)}) as writer:
        for first in range(0, n, 10):
            part = np.moveaxis(data[first : first + 10], -1, 2)
            times = np.tile(np.arange(t), (len(part), 1))
            trajectory = {"velocity": part[:, :, :2], "pressure": part[:, :, 2:], "time": times}
            writer.write(range(first, first + len(part)), trajectory, {"x": np.arange(x), "y": np.arange(y)})
        writer.finish()


def plain_reader(array: Any, window: int) -> Read:
    """Windows of a numpy or h5py array into one buffer a batch."""

    def read(cases: np.ndarray, frames: np.ndarray) -> np.ndarray:
        buffer = np.empty((len(cases), window, *array.shape[2:]), dtype=np.float32)
        for k, (case, frame) in enumerate(zip(cases.tolist(), frames.tolist(), strict=True)):
            buffer[k] = array[case, frame : frame + window]
        return buffer

    return read


def sciml_reader(path: Path, fields: tuple[str, ...], window: int, frames_in_file: int) -> Read:
    """Batches of `TrajectoryWindows`."""
    windows = TrajectoryWindows(path, fields, history=1, horizon=window - 1)
    per_case = frames_in_file - window + 1
    return lambda cases, frames: windows.__getitems__(cases * per_case + frames)


def layouts(folder: Path, data: np.ndarray, window: int) -> dict[str, tuple[Read, Path]]:
    """Name -> (reader, file)."""
    readers: dict[str, tuple[Read, Path]] = {}
    raw = folder / "raw.bin"
    data.tofile(raw)
    readers["np.memmap"] = plain_reader(np.memmap(raw, np.float32, "r", shape=data.shape), window), raw
    ours = folder / "sciml.hdf5"
    write_sciml(ours, data)
    everything = sciml_reader(ours, ("velocity", "pressure"), window, data.shape[1])
    readers["sciml TrajectoryWindows"] = everything, ours
    readers["sciml TrajectoryWindows, 2 of 3 channels"] = (
        sciml_reader(ours, ("velocity",), window, data.shape[1]),
        ours,
    )
    frame = (1, 1, *data.shape[2:])
    for name, options in {
        "HDF5 contiguous, h5py": {},
        "HDF5 chunk of 1 frame, h5py": {"chunks": frame},
        "HDF5 chunks=True, h5py": {"chunks": True},
        "HDF5 chunk of 1 frame, gzip, h5py": {"chunks": frame, "compression": "gzip", "shuffle": True},
    }.items():
        path = folder / f"h5py_{len(readers)}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("state", data=data, **options)
        readers[name] = plain_reader(h5py.File(path, "r")["state"], window), path
    return readers


def cpu_seconds(read: Read, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """CPU time of this process for these batches."""
    start = time.process_time()
    for cases, frames in batches:
        read(cases, frames)
    return time.process_time() - start


def run(n_cases: int = 100, n_frames: int = 20, window: int = 2, rounds: int = 5) -> list[dict[str, Any]]:
    """One row a layout: CPU microseconds a window, ratio to the memory map, file size in MB."""
    data = smooth_data((n_cases, n_frames, 64, 64, 3))
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        readers = layouts(Path(folder), data, window)
        best = dict.fromkeys(readers, np.inf)
        for round_ in range(rounds + 1):  # the first warms up
            for name, (read, _) in readers.items():
                n_batches = 64 if "memmap" in name or "sciml" in name else 8
                cases = rng.integers(0, n_cases, (n_batches, BATCH))
                frames = rng.integers(0, n_frames - window + 1, (n_batches, BATCH))
                seconds = cpu_seconds(read, zip(cases, frames, strict=True)) / (n_batches * BATCH)
                best[name] = min(best[name], seconds) if round_ else np.inf
        return [
            {
                "layout": name,
                "cpu_us_per_window": round(best[name] * 1e6, 1),
                "ratio_to_memmap": round(best[name] / best["np.memmap"], 2),
                "file_mb": round(path.stat().st_size / 1e6, 1),
            }
            for name, (_, path) in readers.items()
        ]


def main() -> int:
    """Print the table; exit 1 when the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = run(rounds=arguments.rounds)
    ratio = next(row["ratio_to_memmap"] for row in rows if row["layout"] == "sciml TrajectoryWindows")
    verdict = "met" if ratio <= GATE else "MISSED"
    report(
        "storage_layouts",
        "What does a random two-frame window cost to read?",
        rows,
        [f"gate: sciml at most {GATE} times np.memmap in CPU time; measured {ratio} ({verdict})"],
    )
    return 0 if ratio <= GATE else 1


if __name__ == "__main__":
    raise SystemExit(main())
