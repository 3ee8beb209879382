"""Which pictures a case gets: by the dimension of its box, and beside that by its problem."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sciml.plotting import style
from sciml.plotting.animation import animate_rollout
from sciml.plotting.channel import channel_profiles
from sciml.plotting.diagrams import space_time
from sciml.plotting.extras import SOURCES
from sciml.plotting.fields import triptych
from sciml.plotting.flows import FROM_FIELDS, as_vorticity, has_vorticity, look_of
from sciml.plotting.lines import line_profiles
from sciml.plotting.planes import mid_plane, slices
from sciml.plotting.predictions import Case
from sciml.plotting.profiles import centreline_profiles
from sciml.plotting.series import series_over_time
from sciml.plotting.spectrum import spectra

WITHOUT_STREAMLINES = ("burgers", "periodic_flow")
"""Velocities whose streamlines say little: of a Burgers field, and of a tangle of eddies."""
SPECTRUM_NAMES = {"velocity": "energy", "vorticity": "enstrophy"}


def draw_space_time(case: Case, folder: Path) -> Path:
    path = folder / f"space_time_{case.name}.png"
    space_time(case.truth[:, 0], case.prediction[:, 0], times=case.time, path=path, **_on_a_line(case))
    return path


def draw_lines(case: Case, folder: Path) -> Path:
    path = folder / f"lines_{case.name}.png"
    rows = style.spread(len(case.truth), 4)
    truth, prediction = case.truth[rows, 0], case.prediction[rows, 0]
    line_profiles(truth, prediction, times=case.time[rows], path=path, **_on_a_line(case))
    return path


def draw_fields(case: Case, folder: Path) -> Path:
    """Early, middle and last frame: where a rollout goes wrong is seen late, how it starts is seen early."""
    path = folder / f"fields_{case.name}.png"
    rows = _early_middle_last(case)
    truth, prediction, options = _in_a_plane(case)
    streamlines = case.field == "velocity" and case.dim == 2 and case.problem not in WITHOUT_STREAMLINES
    triptych(truth[rows], prediction[rows], times=case.time[rows], streamlines=streamlines, path=path, **options)
    return path


def draw_vorticity(case: Case, folder: Path) -> Path:
    path = folder / f"vorticity_{case.name}.png"
    rows = _early_middle_last(case)
    truth, prediction, options = _as_vorticity(case)
    triptych(truth[rows], prediction[rows], times=case.time[rows], path=path, **options)
    return path


def draw_series(case: Case, folder: Path) -> Path:
    path = folder / f"series_{case.name}.png"
    solver, truth, prediction = (case.series.get(source, {}) for source in SOURCES)
    words = {"units": case.series_units, "how": FROM_FIELDS.get(case.problem, "from the fields"), "title": case.title}
    series_over_time(case.time, solver, truth=truth, prediction=prediction, path=path, **words)
    return path


def draw_animation(case: Case, folder: Path) -> Path:
    truth, prediction, options = (_as_vorticity if _swirls(case) else _in_a_plane)(case)
    if _swirls(case):
        options["size"] = 3.4
    return animate_rollout(truth, prediction, times=case.time, path=folder / f"rollout_{case.name}.gif", **options)


def draw_slices(case: Case, folder: Path) -> Path:
    path = folder / f"slices_{case.name}.png"
    truth, prediction = (a[-1] if case.vector else a[-1, 0] for a in (case.truth, case.prediction))
    title = f"{case.title}, {_moment(case)}"
    box: dict[str, Any] = {"lengths": case.lengths, "origin": case.origin}
    slices(truth, prediction, name=case.label, unit=case.unit, title=title, path=path, **box)
    return path


def draw_spectra(case: Case, folder: Path) -> Path:
    path = folder / f"spectrum_{case.name}.png"
    rows = _early_middle_last(case)
    spectra(
        case.truth[rows],
        case.prediction[rows],
        lengths=case.lengths,
        times=case.time[rows],
        name=SPECTRUM_NAMES.get(case.field, case.field.replace("_", " ")),
        unit=case.unit,
        title=case.title,
        path=path,
    )
    return path


def draw_centre_lines(case: Case, folder: Path) -> Path:
    path = folder / f"profiles_{case.name}.png"
    centreline_profiles(
        case.truth[-1],
        case.prediction[-1],
        lid_velocity=case.lid_velocity,
        reynolds=case.reynolds,
        time=float(case.time[-1]),
        **_profile(case, path),
    )
    return path


def draw_channel(case: Case, folder: Path) -> Path:
    path = folder / f"profiles_{case.name}.png"
    channel_profiles(case.truth[-1], case.prediction[-1], time=float(case.time[-1]), **_profile(case, path))
    return path


Picture = Callable[[Case, Path], Path]

BY_DIMENSION: Mapping[int, tuple[Picture, ...]] = {
    1: (draw_space_time, draw_lines),
    2: (draw_fields,),
    3: (draw_fields, draw_slices),
}
"""What every case is drawn as; in 3D the fields are those of the plane z = middle."""

BY_PROBLEM: Mapping[str, tuple[Picture, ...]] = {
    "cavity": (draw_centre_lines,),
    "periodic_flow": (draw_spectra,),
    "tube": (draw_channel,),
    "vorticity": (draw_spectra,),
}
"""What is drawn beside that."""


def pictures_of(case: Case, animate: bool) -> tuple[Picture, ...]:
    """The functions that draw a case; ``animate`` adds the rollout where a frame is an image."""
    velocity_only = (draw_centre_lines, draw_channel)
    extra = tuple(
        each
        for each in BY_PROBLEM.get(case.problem, ())
        if each not in velocity_only or (case.field == "velocity" and case.truth.shape[1] == case.dim == 2)
    )
    animation = (draw_animation,) if animate and case.dim > 1 else ()
    swirl = (draw_vorticity,) if _swirls(case) else ()
    known = any(np.isfinite(values).any() for own in case.series.values() for values in own.values())
    series = (draw_series,) if known else ()
    return (*animation, *BY_DIMENSION[case.dim], *swirl, *extra, *series)


def _swirls(case: Case) -> bool:
    return has_vorticity(case.problem, case.field, case.truth)


def _early_middle_last(case: Case) -> list[int]:
    last = len(case.truth) - 1
    return sorted({min(2, last), last // 2, last})


def _moment(case: Case) -> str:
    factor, unit = style.readable_time(case.time, "s")
    return f"t = {factor * case.time[-1]:.4g} {unit}"


def _on_a_line(case: Case) -> dict[str, Any]:
    box = {"length": case.lengths[0], "origin": case.origin[0]}
    return {"name": case.field.replace("_", " "), "unit": case.unit, "title": case.title, **box}


def _in_a_plane(case: Case) -> tuple[Any, Any, dict[str, Any]]:
    """Truth and prediction in the box, or on the middle plane x-y of three dimensions, and what names them."""
    arrays = [mid_plane(a) if case.dim == 3 else a for a in (case.truth, case.prediction)]
    truth, prediction = arrays if case.vector else (a[:, 0] for a in arrays)
    title = case.title + (", plane through the middle of z" if case.dim == 3 else "")
    labels = {"unit": case.unit, "name": case.label, "title": title}
    box = {"width": case.lengths[0], "height": case.lengths[1], "origin": case.origin[:2]}
    return truth, prediction, {**labels, **box, "fluid": case.fluid, "look": look_of(case.problem, case.field)}


def _as_vorticity(case: Case) -> tuple[Any, Any, dict[str, Any]]:
    """As ``_in_a_plane``, of the vorticity of a velocity."""
    truth, prediction, options = _in_a_plane(case)
    box = {"width": case.lengths[0], "height": case.lengths[1], "fluid": case.fluid}
    (truth, named), (prediction, _) = (as_vorticity(each, case.unit, **box) for each in (truth, prediction))
    return truth, prediction, {**options, **named}


def _profile(case: Case, path: Path) -> dict[str, Any]:
    box = {"width": case.lengths[0], "height": case.lengths[1]}
    return {"velocity_unit": case.unit, "title": case.title, "path": path, **box}
