"""Pictures of a case of a data file: what ``sciml generate`` made."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sciml.errors import DataError
from sciml.plotting import style
from sciml.plotting.choices import SPECTRUM_NAMES
from sciml.plotting.diagrams import SQUARE, draw_space_time
from sciml.plotting.lines import line_profiles
from sciml.plotting.panels import bulk_scale, colours_of, draw, extend_of, positive_scale, scale_of
from sciml.plotting.particles.data_file import particle_case_figure
from sciml.plotting.planes import mid_plane
from sciml.plotting.predictions import SHOWN
from sciml.plotting.sheet import make_box, make_sheet
from sciml.plotting.spectrum import spectra

if TYPE_CHECKING:
    from sciml.datasets import DatasetFile

FRAMES = 4
Fields = Mapping[str, NDArray[np.float64]]


def case_figure(path: str | Path, case: int = 0, *, folder: str | Path | None = None) -> list[Path]:
    """Draw case number ``case`` of a data file; returns the paths, in ``folder`` or beside the file.

    ``<file>_case<N>.png``: in one dimension every field over space and time, otherwise every field (a vector's
    magnitude) at four times, in three dimensions on the plane through the middle of z; of a static problem its fields.
    ``<file>_case<N>_lines.png`` in one dimension: the fields as lines. ``<file>_case<N>_spectrum.png`` of a periodic
    box in two and three dimensions: the spectrum of the velocity, or of the field that the pictures of a run show.
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
    title = ", ".join(word for word in (file.info.problem, file.subsets[case], f"case {case}") if word)
    several = len(times) > 1
    preferred = ("velocity", *SHOWN.get(file.info.problem, ()))
    first = next((name for name in preferred if name in fields), next(iter(fields)))

    tasks: list[tuple[str, Callable[..., Any]]]
    if len(lengths) == 1:
        line = {"length": lengths[0], "origin": origin[0]}
        tasks = [("_lines", partial(_lines, fields[first][:, 0], times, name=first, unit=units[first], **line))]
        if several:
            tasks.insert(0, ("", partial(_space_times, fields, units, times, **line)))
    else:
        tasks = [("", partial(_frames, fields, units, times, lengths, origin))]
        if several and set(file.info.boundaries.values()) == {"periodic"}:
            name = SPECTRUM_NAMES.get(first, first.replace("_", " "))
            rows = style.spread(len(times), 3)
            labels = {"name": name, "unit": units[first], "lengths": lengths}
            tasks.append(("_spectrum", partial(spectra, fields[first][rows], times=times[rows], **labels)))
    written = []
    for suffix, task in tasks:
        written.append(target.with_stem(target.stem + suffix))
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
    lengths: list[float],
    origin: list[float],
    *,
    title: str,
    path: Path,
) -> None:
    rows = style.spread(len(times), FRAMES)
    box = make_box(lengths[0], lengths[1], origin[:2])
    if len(lengths) == 3:
        title += ", plane through the middle of z"
    factor, unit = style.readable_time(times.tolist(), "s")
    with style.style():
        # One field: its frames beside one another. Several: a column each, with a colour bar of its own.
        across = len(fields) == 1
        boxes, groups = ([box], (len(rows),)) if across else ([box] * len(rows), (1,) * len(fields))
        sheet = make_sheet(boxes, groups, 2.3, heading=True)
        names = []
        for column, (name, values) in enumerate(fields.items()):
            values = mid_plane(values[rows]) if len(lengths) == 3 else values[rows]
            images = values[:, 0] if values.shape[1] == 1 else np.linalg.norm(values, axis=1)
            log = positive_scale(images) if len(times) == 1 else None
            limits = log or bulk_scale(images, name)
            for row, image in enumerate(images):
                axes = sheet.axes[0][row] if across else sheet.axes[row][column]
                shown = draw(axes, image, box, limits, colours_of(limits), log=log is not None)
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
