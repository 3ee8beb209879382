"""The pictures of a run on a static problem."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sciml.plotting.lines import line_profiles
from sciml.plotting.maps import field_map
from sciml.plotting.planes import mid_plane
from sciml.plotting.predictions import Arrays, Case, cases_of

ROWS = 3
"""Cases in a picture."""


def static_figures(arrays: Arrays, figures: Path) -> list[Callable[[], Path]]:
    """What draws ``fields_<subset>.png``: a few cases of each subset, which share their scales."""
    groups: dict[str, list[int]] = defaultdict(list)
    cases = list(cases_of(arrays))
    for number, case in enumerate(cases):
        members = groups[str(arrays["subset"][number]) if "subset" in arrays else ""]
        # One picture has one box.
        if len(members) < ROWS and (not members or cases[members[0]].lengths == case.lengths):
            members.append(number)
    return [
        partial(_draw, arrays, cases, members, subset, figures / (f"fields_{subset}.png" if subset else "fields.png"))
        for subset, members in groups.items()
    ]


def _draw(arrays: Arrays, cases: list[Case], members: list[int], subset: str, path: Path) -> Path:
    case = cases[members[0]]
    labels = [f"case {int(arrays['case'][i])}" if "case" in arrays else f"case {i}" for i in members]
    inputs = arrays["input"][members, 0]
    truth, prediction = (np.stack([getattr(cases[i], which)[0] for i in members]) for which in ("truth", "prediction"))
    if not case.vector:
        truth, prediction = truth[:, 0], prediction[:, 0]
    title = f"{subset}, held-out cases" if subset else "Held-out cases"
    if case.dim == 1:
        if case.vector:
            truth, prediction = truth[:, 0], prediction[:, 0]
        labelled: dict[str, Any] = {"name": case.field, "unit": case.unit, "labels": labels, "title": title}
        line_profiles(truth, prediction, length=case.lengths[0], origin=case.origin[0], path=path, **labelled)
        return path
    points, fluid = arrays.get("points"), arrays.get("fluid")
    if case.dim == 3:
        inputs, truth, prediction = (mid_plane(values) for values in (inputs, truth, prediction))
        title += ", plane through the middle of z"
    field_map(
        inputs,
        truth,
        prediction,
        width=case.lengths[0],
        height=case.lengths[1],
        origin=case.origin[:2],
        # In three dimensions the points lie off the plane.
        points=points[members] if points is not None and case.dim == 2 else None,
        fluid=fluid[members] if fluid is not None and case.dim == 2 else None,
        labels=labels,
        input_name=str(arrays["inputs"][0]).replace("_", " ") if "inputs" in arrays else "input",
        input_unit=str(arrays["input_units"][0]) if "input_units" in arrays else "",
        name=case.label,
        unit=case.unit,
        title=title,
        path=path,
    )
    return path
