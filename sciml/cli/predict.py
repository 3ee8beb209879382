"""``sciml predict``: roll a surrogate out from the cases of a data file, or map its input fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sciml.cli import options
from sciml.cli.console import print_json
from sciml.cli.progress import RichProgress
from sciml.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from sciml.datasets import DatasetFile, DatasetInfo
    from sciml.surrogate import Surrogate

NEEDS_ARGUMENTS = True
CHUNK = 16
"""Cases rolled out together."""
DEFAULT_STEPS = 20

EXAMPLES = """Examples:

  sciml generate --problem cavity --cases 8 --seed 7 --out cases.h5
  sciml predict runs/cavity/unet/RUN --input cases.h5 --out predicted.h5

Fifty steps ahead from the last frame of the file:

  sciml predict RUN --input cases.h5 --out ahead.h5 --frame -1 --steps 50

The written file has the format of the input: sciml.datasets.DatasetFile reads
it, and so does any HDF5 reader.

Of a dgno run: input functions (.npy, .npz or .csv) to solutions (.npz):

  sciml predict runs/darcy/dgno/RUN --input permeability.npy --out pressure.npz"""


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, or the surrogate inside it.")],
    input: Annotated[
        Path,
        typer.Option("--input", "-i", metavar="FILE", help="Data file with initial states and parameters."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Data file to write.")],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Frames to predict; default: up to the last of the file.", show_default=False),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(help="Frame to start from, -1 the last; default: the first possible.", show_default=False),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(min=1, help="Of particles: how many are stepped; default: as in training.", show_default=False),
    ] = None,
    device: Annotated[options.Device, typer.Option(help="Where to compute.")] = options.Device.auto,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    json: options.Json = False,
) -> None:
    """Roll a surrogate out from the cases of a data file (of fields or of particles), or map its fields.

    Writes what it predicts from one frame of every case. Where the input goes on after that frame, the error
    against it is reported.
    """
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; choose another --out, or replace it with --overwrite")
    import torch

    from sciml.datasets import DatasetFile
    from sciml.surrogate import load

    chosen = device.value
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    from sciml.datasets.particles import is_particle_file

    surrogate = load(run, chosen)
    if surrogate.kind == "latent":
        if points is not None:
            raise ConfigError("--points chooses how many particles are stepped; this surrogate is one of fields")
        from sciml.cli.predict_latent import predict_latent

        with RichProgress() as progress:
            result = predict_latent(surrogate, input, out, steps, frame, progress)
        if json:
            print_json(result)
        return
    if surrogate.kind == "particles" or is_particle_file(input):
        from sciml.cli.predict_particles import predict_particles

        with RichProgress() as progress:
            result = predict_particles(surrogate, input, out, steps, frame, points, run, progress)
        if json:
            print_json(result)
        return
    if points is not None:
        raise ConfigError("--points chooses how many particles are stepped; this surrogate is one of fields")
    file = DatasetFile(input)
    if surrogate.kind == "trajectory":
        raise ConfigError(
            f"the surrogate in {run} gives whole solutions from parameters, there is nothing to step on from: call "
            "surrogate.solve(parameters) in Python, or compare it with a file: sciml evaluate RUN --data FILE"
        )
    with RichProgress() as progress:
        if surrogate.kind == "map":
            if steps is not None:
                raise ConfigError("this surrogate is a map, it has no steps: leave out --steps")
            result = map_fields(surrogate, file, out, frame=frame or 0, source=run, progress=progress)
        else:
            result = roll_out(surrogate, file, out, steps=steps, frame=frame, source=run, progress=progress)
        error = result["relative_l2_last"]
        told = "" if error is None else f"; relative L2 after {result['compared_frames']} steps {error:.3g}"
        progress.message(
            f"wrote {out}: {result['cases']} cases, {result['steps']} steps from frame {result['frame']}" + told
        )
    if json:
        print_json(result)


def roll_out(
    surrogate: "Surrogate",
    file: "DatasetFile",
    out: Path,
    *,
    steps: int | None,
    frame: int | None,
    source: Path,
    progress: RichProgress,
) -> dict[str, Any]:
    """Write the rollouts of every case of ``file``: the frames that the surrogate reads, then those it
    predicts.

    Raises DataError when the file does not fit the surrogate, ConfigError for a frame that is not there.
    """
    import torch

    from sciml import metrics
    from sciml.datasets import DatasetWriter

    history = surrogate.history
    first = _start(file, history, frame)
    given = file.n_frames - 1 - first
    steps = steps or given or DEFAULT_STEPS
    info = _description(surrogate, file, history + steps, source, first)
    channels = torch.cat([torch.arange(file.info.n_channels)[file.info.channels(name)] for name in surrogate.fields])
    parameters = {name: _ahead(values, first, history, steps) for name, values in file.parameters.items()}
    errors = []
    with (
        DatasetWriter(out, info, file.n_cases, parameters, file.subsets, overwrite=True) as writer,
        progress.phase("predict", file.n_cases),
    ):
        for start in range(0, file.n_cases, CHUNK):
            cases = range(start, min(start + CHUNK, file.n_cases))
            window = file.state(cases, range(first - history + 1, first + 1))[:, :, channels]
            interval = _intervals(surrogate, file, cases, first, steps)
            # Entry t of a changing parameter acts from frame t on; the first step starts at the last read.
            chosen = {name: torch.as_tensor(values[list(cases)]) for name, values in parameters.items()}
            now = {name: v[:, history - 1 :] if v.ndim == 2 else v for name, v in chosen.items()}
            frames = surrogate.rollout(window if history > 1 else window[:, 0], now, steps, interval).cpu()
            compared = min(given, steps)
            if compared:
                truth = file.state(cases, range(first + 1, first + 1 + compared))[:, :, channels]
                fluid = surrogate.problem.fluid_cells({n: _first(v) for n, v in chosen.items()}, file.info.grid)
                errors.append(metrics.relative_l2(frames[:, :compared], truth, fluid))
            begin = torch.as_tensor(file.times[list(cases), first - history + 1 : first + 1])
            time = torch.cat([begin, begin[:, -1:] + interval.cumsum(1)], 1)
            writer.write(
                list(cases),
                {**_by_field(surrogate, torch.cat([window, frames], 1)), **_constants(file, cases), "time": time},
                {axis: values[list(cases)] for axis, values in file.coordinates.items()},
            )
            progress.advance(len(cases))
        writer.finish()
    mean = torch.cat(errors).mean(0).tolist() if errors else []
    return {
        "file": str(out),
        "cases": file.n_cases,
        "frame": first,
        "steps": steps,
        "compared_frames": len(mean),
        "relative_l2": mean,
        "relative_l2_last": mean[-1] if mean else None,
    }


def map_fields(
    surrogate: "Surrogate", file: "DatasetFile", out: Path, *, frame: int, source: Path, progress: RichProgress
) -> dict[str, Any]:
    """Write what a map makes of the fields at one frame of every case of ``file``, at the time of its last frame.

    A surrogate that reads points reads so many random cells of each case as it was trained with. Where the file holds
    the predicted fields the error against its last frame is reported.

    Raises DataError when the file does not fit the surrogate, ConfigError for a frame that is not there.
    """
    import torch

    from sciml import metrics
    from sciml.datasets import DatasetWriter
    from sciml.training.tasks import observed

    first = _start(file, 1, frame)
    info = _description(surrogate, file, 1, source, first)
    held = {field.name: field for field in file.info.fields}
    read = [c for name in surrogate.inputs for c in range(file.info.n_channels)[file.info.channels(name)]]
    known = all(name in held for name in surrogate.fields)
    wanted = list(surrogate.fields) if known else []
    truth_channels = [c for name in wanted for c in range(file.info.n_channels)[file.info.channels(name)]]
    parameters = {name: values[:, first] if values.ndim == 2 else values for name, values in file.parameters.items()}
    generator, device, errors = torch.Generator().manual_seed(0), surrogate.normaliser.mean.device, []
    with (
        DatasetWriter(out, info, file.n_cases, parameters, file.subsets, overwrite=True) as writer,
        progress.phase("predict", file.n_cases),
        torch.no_grad(),
    ):
        for start in range(0, file.n_cases, CHUNK):
            cases = list(range(start, min(start + CHUNK, file.n_cases)))
            fields = file.state(cases, [first])[:, 0, read].to(device)
            state, points = observed(surrogate, fields, generator)
            now = {name: torch.as_tensor(values[cases]) for name, values in parameters.items()}
            end = torch.as_tensor(file.times[cases, -1])
            made = surrogate(state, now, end - torch.as_tensor(file.times[cases, first]), points).cpu().unsqueeze(1)
            if known:
                fluid = surrogate.problem.fluid_cells(now, file.info.grid)
                truth = file.state(cases, [file.n_frames - 1])[:, :, truth_channels]
                errors.append(metrics.relative_l2(made, truth, fluid))
            writer.write(
                cases,
                {**_by_field(surrogate, made), **_constants(file, cases), "time": end.unsqueeze(1)},
                {axis: values[cases] for axis, values in file.coordinates.items()},
            )
            progress.advance(len(cases))
        writer.finish()
    mean = torch.cat(errors).mean(0).tolist() if errors else []
    return {
        "file": str(out),
        "cases": file.n_cases,
        "frame": first,
        "steps": 1,
        "compared_frames": len(mean),
        "relative_l2": mean,
        "relative_l2_last": mean[-1] if mean else None,
    }


def _start(file: "DatasetFile", history: int, frame: int | None) -> int:
    """The last frame that the surrogate reads."""
    first = history - 1 if frame is None else frame + file.n_frames * (frame < 0)
    if not history - 1 <= first < file.n_frames:
        needed = f", and this surrogate reads {history} frames up to it" if history > 1 else ""
        raise ConfigError(f"--frame is {frame}; {file.path} has frames 0 to {file.n_frames - 1}{needed}")
    return first


def _description(surrogate: "Surrogate", file: "DatasetFile", frames: int, source: Path, first: int) -> "DatasetInfo":
    """What the written file says about itself; checks on the way that the input fits the surrogate."""
    import dataclasses

    from sciml import __version__

    if file.info.problem != surrogate.problem.name:
        raise DataError(
            f"{file.path} holds the problem {file.info.problem!r}; the surrogate is for {surrogate.problem.name!r}"
        )
    if len(file.info.grid) != surrogate.problem.dim:
        raise DataError(
            f"{file.path} has {len(file.info.grid)} space dimensions, the surrogate {surrogate.problem.dim}"
        )
    known = {field.name: field for field in file.info.fields}
    for name, field in surrogate.inputs.items():
        if name not in known or known[name].components != field.components:
            held = ", ".join(f"{f.name} ({f.components})" for f in file.info.fields)
            raise DataError(f"the surrogate needs the field {name} ({field.components}); {file.path} holds {held}")
    return dataclasses.replace(
        file.info,
        fields=tuple(surrogate.fields.values()),
        face_fields=(),
        series={},
        n_frames=frames,
        solver=f"surrogate {source}",
        seed=None,
        version=__version__,
        extra={"predicted_from": str(file.path), "frame": first},
    )


def _ahead(values: Any, first: int, history: int, steps: int) -> Any:
    """A parameter over the written frames; one that changes in time keeps its last value beyond the file."""
    if values.ndim == 1:
        return values
    import numpy as np

    frames = np.arange(first - history + 1, first + steps + 1)
    return values[:, np.minimum(frames, values.shape[1] - 1)]


def _intervals(surrogate: "Surrogate", file: "DatasetFile", cases: range, first: int, steps: int) -> "Tensor":
    """Seconds of each step ``(B, steps)``: those of the file, the last one repeated beyond its end."""
    import torch

    between = torch.as_tensor(file.times[list(cases)]).diff(dim=1)
    if between.shape[1] == 0:
        if surrogate.interval is None:
            raise DataError(
                f"{file.path} has one frame, so it does not say how long a step is, and the surrogate was "
                "trained on several intervals"
            )
        return torch.full((len(cases), steps), surrogate.interval, dtype=torch.float64)
    wanted = torch.arange(first, first + steps).clamp(max=between.shape[1] - 1)
    return between[:, wanted]


def _first(values: "Tensor") -> "Tensor":
    """The value of a parameter at the first frame, ``(B,)``."""
    return values[:, 0] if values.ndim == 2 else values


def _constants(file: "DatasetFile", cases: Sequence[int]) -> dict[str, "Tensor"]:
    """The fields of the input that do not change in time, which the output has too."""
    return {field.name: file.constant(field.name, cases) for field in file.info.constant_fields}


def _by_field(surrogate: "Surrogate", state: "Tensor") -> dict[str, "Tensor"]:
    parts = state.split([field.components for field in surrogate.fields.values()], 2)
    return dict(zip(surrogate.fields, parts, strict=True))
