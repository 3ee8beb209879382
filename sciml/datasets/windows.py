"""Windows of consecutive frames from trajectories, gathered a batch at a time."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sciml.datasets.collection import Collection, Source
from sciml.errors import DataError

T = TypeVar("T")


def keep_batch(batch: T) -> T:
    """For ``DataLoader(windows, batch_size=..., collate_fn=keep_batch)``: windows come collated."""
    return batch


class TrajectoryWindows(Dataset):
    """Every window of ``history + horizon`` frames, ``stride`` frames apart, of the chosen cases.

    A window starts at any frame from ``first_frame`` on that leaves room for it; windows are numbered case by
    case in the order of ``cases`` (global indices over the files; None takes all). Item i, and with a leading
    axis B the batch of ``__getitems__``, is a dictionary:

    - ``state (history + horizon, C, *grid)`` float32, the channels of ``fields`` in that order (channels-last
      strides)
    - ``parameters (horizon, P)`` float64, in the order of ``parameter_names``: what acts on the transition to
      each of the horizon's frames (of a time-varying parameter with stride > 1: its mean over the frames that
      are passed)
    - ``time (history + horizon)`` float64
    - ``case``, ``frame``: global case and first frame, int64

    ``pin_memory`` gathers into page-locked memory. Raises `DataError` for unknown fields, files that do not
    agree, and windows longer than every trajectory.
    """

    def __init__(
        self,
        files: Source | Collection | Iterable[Source],
        fields: Sequence[str] = ("velocity",),
        history: int = 1,
        horizon: int = 1,
        cases: Sequence[int] | np.ndarray | None = None,
        first_frame: int = 0,
        stride: int = 1,
        *,
        pin_memory: bool = False,
    ) -> None:
        for name, value, least in (("history", history, 1), ("horizon", horizon, 0), ("stride", stride, 1)):
            if value < least:
                raise DataError(f"{name} must be at least {least}, got {value}")
        if first_frame < 0 or isinstance(fields, str) or not fields:
            raise DataError(f"first_frame must be >= 0 and fields a list of names, got {first_frame} and {fields!r}")
        self.collection = Collection(files)
        self.info = self.collection.info
        self.fields, self.history, self.horizon = tuple(fields), history, horizon
        self.first_frame, self.stride, self.pin_memory = first_frame, stride, pin_memory
        self.channels = np.concatenate([np.arange(self.info.n_channels)[self.info.channels(f)] for f in fields])
        n = self.collection.n_cases
        self.cases = np.arange(n) if cases is None else np.asarray(cases, dtype=np.int64).reshape(-1)
        self._file, self._local = self.collection.locate(self.cases)
        span = (history + horizon - 1) * stride
        frames = self.collection.n_frames(self.cases)
        self._ends = np.cumsum(np.maximum(0, frames - first_frame - span))
        if len(self) == 0:
            raise DataError(
                f"no window of {history} + {horizon} frames with stride {stride} from frame {first_frame} on fits "
                f"into {len(self.cases)} cases of {frames.max(initial=0)} frames; choose shorter windows or more "
                "cases"
            )

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return self.collection.parameter_names

    @property
    def channel_names(self) -> tuple[str, ...]:
        return tuple(self.info.channel_names[c] for c in self.channels)

    @property
    def window(self) -> int:
        """Frames in a window."""
        return self.history + self.horizon

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        return {name: value[0] for name, value in self.__getitems__([index]).items()}

    def __getitems__(self, indices: Sequence[int] | np.ndarray | Tensor) -> dict[str, Tensor]:
        """The batch of these windows."""
        index = np.asarray(indices, dtype=np.int64).reshape(-1)
        if index.size and (index.min() < -len(self) or index.max() >= len(self)):
            raise IndexError(f"windows {index.min()} to {index.max()} of {len(self)}")
        index = index % len(self)
        row = np.searchsorted(self._ends, index, side="right")  # position in self.cases
        frame = index - np.where(row > 0, self._ends[row - 1], 0) + self.first_frame
        file, local = self._file[row], self._local[row]
        parameters, time = self._small(file, local, frame)
        return {
            "state": self._gather(file, local, frame),
            "parameters": torch.from_numpy(parameters),
            "time": torch.from_numpy(time),
            "case": torch.from_numpy(self.cases[row]),
            "frame": torch.from_numpy(frame),
        }

    def trajectory(self, cases: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Whole trajectories of global cases: every field and face field of the files, and ``time``."""
        return self.collection.trajectory(cases)

    def _gather(self, file: np.ndarray, local: np.ndarray, frame: np.ndarray) -> Tensor:
        """(B, W, C, *grid), a view of one freshly filled (B, W, *grid, C) buffer."""
        shape = (len(file), self.window, *self.info.grid, len(self.channels))
        if self.pin_memory:
            buffer = torch.empty(shape, pin_memory=True)
        else:  # numpy gives the last batch's memory again, torch's aligned memory wanders: 25 % more CPU time
            buffer = torch.from_numpy(np.empty(shape, dtype=np.float32))
        out = buffer.numpy()
        arrays = [f.array() for f in self.collection.files]
        everything = np.array_equal(self.channels, np.arange(self.info.n_channels))
        span = (self.window - 1) * self.stride + 1
        for k, (f, case, first) in enumerate(zip(file.tolist(), local.tolist(), frame.tolist(), strict=True)):
            source = arrays[f][case, first : first + span : self.stride]
            if everything:
                out[k] = source
            else:  # channel by channel: one long strided copy each instead of many of two or three numbers
                for j, channel in enumerate(self.channels.tolist()):
                    out[k, ..., j] = source[..., channel]
        return buffer.movedim(-1, 2)

    def _small(self, file: np.ndarray, local: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parameters (B, horizon, P) and times (B, W)."""
        parameters = np.empty((len(file), self.horizon, len(self.parameter_names)))
        time = np.empty((len(file), self.window))
        steps = frame[:, None] + np.arange(self.window) * self.stride
        passed = steps[:, self.history - 1 : -1, None] + np.arange(self.stride)  # (B, horizon, stride)
        for f in np.unique(file):
            rows = np.flatnonzero(file == f)
            source, case = self.collection.files[f], local[rows]
            time[rows] = source.times[case[:, None], steps[rows]]
            for p, name in enumerate(self.parameter_names):
                values = source.parameters[name]
                if values.ndim == 1:
                    parameters[rows, :, p] = values[case, None]
                else:
                    parameters[rows, :, p] = values[case[:, None, None], passed[rows]].mean(axis=-1)
        return parameters, time
