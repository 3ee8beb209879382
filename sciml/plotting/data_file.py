"""Pictures of a case of a data file: what ``sciml generate`` made."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.animation import animate_field
from sciml.plotting.choices import SPECTRUM_NAMES
from sciml.plotting.diagrams import SQUARE, draw_space_time
from sciml.plotting.fields import draw_streamlines
from sciml.plotting.flows import ARROWS, AS_VORTICITY, as_vorticity, has_vorticity, look_of
from sciml.plotting.frames import field_frames
from sciml.plotting.lines import line_profiles
from sciml.plotting.looks import PLAIN, Look
from sciml.plotting.panels import bulk_scale, colours_of, draw, extend_of, positive_scale, scale_of
from sciml.plotting.particles.data_file import particle_case_figure
from sciml.plotting.planes import mid_plane
from sciml.plotting.predictions import preferred, reynolds_of
from sciml.plotting.series import series_over_time
from sciml.plotting.sheet import make_box, make_sheet
from sciml.plotting.solids import blanked, fluid_cells
from sciml.plotting.spectrum import spectra

if TYPE_CHECKING:
    from sciml.datasets import DatasetFile

FRAMES = 4
Fields = Mapping[str, NDArray[np.float64]]
Task = tuple[str, Callable[..., Any]]
"""What a picture's name ends with, and what draws it when it is given a title and a path."""


def case_figure(path: str | Path, case: int = 0, *, folder: str | Path | None = None) -> list[Path]:
    """Draw case number ``case`` of a data file; returns the paths, in ``folder`` or beside the file.

    ``<file>_case<N>.png``: in one dimension every field over space and time, otherwise every field (a vector's
    magnitude) at four times, in three dimensions on the plane through the middle of z; of a static problem its fields.
    ``<file>_case<N>_lines.png`` in one dimension: the fields as lines. ``<file>_case<N>_spectrum.png`` of a periodic
    box in two and three dimensions: the spectrum of the velocity, or of the field that the pictures of a run show.
    Of a flow past a body or with a free surface ``<file>_case<N>.png`` shows vorticity or volume fraction, which
    ``<file>_case<N>.gif`` animates, and ``<file>_case<N>_fields.png`` all fields at the last time;
    ``<file>_case<N>_series.png``, where the file holds numbers of each frame (drag, lift), those against the time.
    Of a particle file: the particles at five times, and ``<file>_case<N>.gif``.

    Raises DataError for a file that cannot be read or has no such case.
    """
    from sciml.datasets import DatasetFile  # torch and h5py are heavy
    from sciml.datasets.particles import is_particle_file

    if is_particle_file(path):
        return particle_case_figure(path, case, folder)
    file = DatasetFile(path)
    if not 0 <= case < file.n_cases:
        raise DataError(f"{path} has no case {case}; its {file.n_cases} cases are counted from 0")
    target = (Path(folder) if folder is not None else Path(path).parent) / f"{Path(path).stem}_case{case}.png"
    state = file.state([case])[0].numpy().astype(np.float64)
    fields = {f.name: state[:, file.info.channels(f.name)] for f in file.info.fields}
    units = {f.name: f.unit for f in file.info.fields}
    times = file.times[case]
    lengths, origin = _box(file, case)
    words = [file.info.problem, file.subsets[case], f"case {case}"]
    if file.info.problem in AS_VORTICITY and (reynolds := reynolds_of(_steady_parameters(file, case))) is not None:
        words.append(f"Re {reynolds:.0f}")
    title = ", ".join(word for word in words if word)
    several = len(times) > 1
    first = preferred(list(fields), file.info.problem)
    fluid = _fluid(file, case)

    tasks: list[Task] = []
    if len(lengths) == 1:
        line = {"length": lengths[0], "origin": origin[0]}
        tasks = [("_lines", partial(_lines, fields[first][:, 0], times, name=first, unit=units[first], **line))]
        if several:
            tasks.insert(0, ("", partial(_space_times, fields, units, times, **line)))
    else:
        rows, suffix, extra = style.spread(len(times), FRAMES), "", {}
        if several and (shown := _flow(file.info.problem, first, fields, units, lengths, fluid)) is not None:
            box = {"width": lengths[0], "height": lengths[1], "origin": origin}
            tasks = _flow_tasks(*shown, fields, times, rows, {**box, "fluid": fluid})
            swirls = file.info.problem in AS_VORTICITY
            looks = {name: look_of(file.info.problem, name) for name in fields}
            rows, suffix, extra = rows[-1:], "_fields", {"largest": 3.0, "streamlines": swirls, "looks": looks}
        tasks.append((suffix, partial(_frames, fields, units, times, rows, lengths, origin, fluid, **extra)))
        if several and set(file.info.boundaries.values()) == {"periodic"}:
            name = SPECTRUM_NAMES.get(first, first.replace("_", " "))
            few = style.spread(len(times), 3)
            labels = {"name": name, "unit": units[first], "lengths": lengths}
            tasks.append(("_spectrum", partial(spectra, fields[first][few], times=times[few], **labels)))
    if file.info.series and several:
        series = {name: file.series(name, [case])[0].numpy() for name in file.info.series}
        tasks.append(("_series", partial(series_over_time, times, series, units=file.info.series)))
    written = []
    for ending, task in tasks:
        written.append(target.with_suffix(ending) if ending[:1] == "." else target.with_stem(target.stem + ending))
        task(title=title, path=written[-1])
    return written


def _box(file: "DatasetFile", case: int) -> tuple[list[float], list[float]]:
    """Sides and low corner of a case from its cell centres."""
    lengths, origin = [], []
    for axis in file.info.axes:
        centres = file.coordinates[axis][case]
        cell = float(centres[-1] - centres[0]) / max(len(centres) - 1, 1)
        lengths.append(cell * len(centres))
        origin.append(float(centres[0]) - 0.5 * cell)
    return lengths, origin


def _fluid(file: "DatasetFile", case: int) -> NDArray[np.float32] | None:
    """1 in the fluid and 0 in bodies, ``(nx, ny)``; None without bodies, and outside two dimensions."""
    if len(file.info.grid) != 2 or all(info.name != "fluid" for info in file.info.constant_fields):
        return None
    return file.constant("fluid", [case])[0, 0].numpy()


def _flow(
    problem: str,
    name: str,
    fields: Fields,
    units: Mapping[str, str],
    lengths: list[float],
    fluid: NDArray[np.float32] | None,
) -> tuple[NDArray[np.float64], dict[str, Any]] | None:
    """What a flow past a body or with a free surface is shown as, ``(frames, nx, ny)``, and what names and colours
    it; None for anything else.
    """
    if has_vorticity(problem, name, fields[name]):
        return as_vorticity(fields[name], units[name], width=lengths[0], height=lengths[1], fluid=fluid)
    look = look_of(problem, name)
    if look is PLAIN or len(lengths) != 2:
        return None
    return fields[name][:, 0], {"name": name.replace("_", " "), "unit": units[name], "look": look}


def _flow_tasks(
    values: NDArray[np.float64],
    look: dict[str, Any],
    fields: Fields,
    times: NDArray[np.float64],
    rows: list[int],
    box: dict[str, Any],
) -> list[Task]:
    """What draws ``values`` at a few times and as an animation; ``look`` and ``box`` as they are named there."""
    arrows = next((fields[name][rows] for name in ARROWS if name in fields), None)
    frames = partial(field_frames, values[rows], times=times[rows], arrows=arrows, **look, **box)
    return [("", frames), (".gif", partial(animate_field, values, times=times, **look, **box))]


def _steady_parameters(file: "DatasetFile", case: int) -> dict[str, float]:
    return {name: float(values[case]) for name, values in file.parameters.items() if values.ndim == 1}


def _space_times(
    fields: Fields,
    units: Mapping[str, str],
    times: NDArray[np.float64],
    *,
    length: float,
    origin: float,
    title: str,
    path: Path,
) -> None:
    with style.style():
        sheet = make_sheet([SQUARE], (1,) * len(fields), 2.6, heading=True)
        for number, (name, values) in enumerate(fields.items()):
            limits, axes = scale_of(values[:, 0], name), sheet.axes[0][number]
            image = values[:, 0].T
            shown = draw_space_time(axes, image, limits, colours_of(limits), length=length, times=times, origin=origin)
            sheet.colour_bar(number, shown, name.replace("_", " "), units[name])
        sheet.axes[0][0].set_ylabel(f"t ({style.readable_time(times.tolist(), 's')[1]})")
        sheet.heading(title)
        style.save(sheet.figure, path)


def _lines(values: NDArray[np.float64], times: NDArray[np.float64], **options: Any) -> None:
    rows = style.spread(len(times), 5)
    line_profiles(values[rows], times=times[rows], **options)


def _frames(
    fields: Fields,
    units: Mapping[str, str],
    times: NDArray[np.float64],
    rows: list[int],
    lengths: list[float],
    origin: list[float],
    fluid: NDArray[np.float32] | None,
    *,
    largest: float = 2.3,
    streamlines: bool = False,
    looks: Mapping[str, Look] | None = None,
    title: str,
    path: Path,
) -> None:
    cells = fluid_cells(fluid, next(iter(fields.values())).shape[2:]) if fluid is not None else None
    box = make_box(lengths[0], lengths[1], origin[:2])
    if len(lengths) == 3:
        title += ", plane through the middle of z"
    factor, unit = style.readable_time(times.tolist(), "s")
    with style.style():
        # One field: its frames beside one another. Several: a column each, with a colour bar of its own.
        across = len(fields) == 1
        boxes, groups = ([box], (len(rows),)) if across else ([box] * len(rows), (1,) * len(fields))
        sheet = make_sheet(boxes, groups, largest, heading=True)
        names = []
        for column, (name, values) in enumerate(fields.items()):
            values = mid_plane(values[rows]) if len(lengths) == 3 else values[rows]
            images = values[:, 0] if values.shape[1] == 1 else np.linalg.norm(values, axis=1)
            images = blanked(images, cells)
            log = positive_scale(images) if len(times) == 1 else None
            look = (looks or {}).get(name, PLAIN)
            limits = log or look.limits or bulk_scale(images, name)
            colours = look.colours or colours_of(limits)
            for row, image in enumerate(images):
                axes = sheet.axes[0][row] if across else sheet.axes[row][column]
                shown = draw(axes, image, box, limits, colours, log=log is not None, fluid=cells)
                if streamlines and name == "velocity":
                    draw_streamlines(axes, values[row], box, cells)
            label = name.replace("_", " ")
            names.append("speed" if name == "velocity" else label if values.shape[1] == 1 else f"|{label}|")
            sheet.colour_bar(column, shown, names[-1], units[name], extend_of(images, limits))
        notes = [f"t = {factor * times[frame]:.4g} {unit}" if len(times) > 1 else "" for frame in rows]
        if across:
            sheet.label_row(0, notes)
        else:
            for row, note in enumerate(notes):
                sheet.label_row(row, names, note)
        sheet.heading(title)
        style.save(sheet.figure, path)
