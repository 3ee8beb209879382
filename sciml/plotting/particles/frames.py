"""Frames of particles on a sheet: a row for truth and each prediction, a column for each of a few times."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sciml.plotting import style
from sciml.plotting.particles.clouds import Cloud, Scene
from sciml.plotting.particles.colours import colouring_of
from sciml.plotting.particles.panel import PointPanel
from sciml.plotting.particles.view import view_of
from sciml.plotting.sheet import STACKED_FROM, make_sheet

COLUMNS = 5
MOST_POINTS = 10_000
"""More cannot be told apart in a panel."""
PANEL = 1.7
"""Inches of the longest side of a panel."""
NARROW = 0.75
"""Panels are drawn larger that are narrower than this many heights: the remarks need room."""


def particle_frames(
    clouds: Sequence[Cloud],
    scene: Scene,
    *,
    start: int = 0,
    title: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Draw clouds (the truth first) of one scene at five times from frame ``start`` to the last; 3 in long, low boxes.

    The colour is the speed, on one scale that the truth fixes, or the kind where several kinds move; fixed points are
    grey. Points are thinned out above 10,000. Over each panel stands what the cloud remarks about that frame.

    Returns the figure, written to ``path`` when given.
    """
    view = view_of(scene)
    long = view.box.width >= STACKED_FROM * view.box.height
    rows = [start + step for step in style.spread(len(clouds[0].position) - start, 3 if long else COLUMNS)]
    clouds = [cloud.thin(MOST_POINTS) for cloud in clouds]
    times = [scene.interval * frame for frame in rows]
    factor, unit = style.readable_time(times, "s")
    with style.style():
        size = PANEL * (COLUMNS / 3 if long else min(max(1.0, NARROW * view.box.height / view.box.width), 1.6))
        sheet = make_sheet([view.box] * len(clouds), (len(rows),), size, heading=True, may_stack=False)
        colouring = colouring_of(clouds, scene, rows)
        for row, cloud in enumerate(clouds):
            for column, frame in enumerate(rows):
                labels = row == column == 0
                PointPanel(sheet.axes[row][column], cloud, view, colouring, labels=labels).show(frame)
            sheet.label_row(
                row,
                [f"t = {factor * time:.3g} {unit}" for time in times],
                "\n".join(filter(None, (cloud.name, cloud.note))),
            )
            for axes, frame in zip(sheet.axes[row], rows, strict=True):
                if remark := cloud.remark(frame):
                    axes.set_title(remark, loc="left", pad=4, fontsize=_fitting(remark, axes))
        colouring.key(sheet)
        sheet.heading(title)
        style.save(sheet.figure, path)
    return sheet.figure


def _fitting(text: str, axes: Axes) -> float:
    """A size of print, 6 to 8 points, in which a line stays over its panel and the gap after it."""
    room = 72 * (axes.get_position().width * axes.figure.get_size_inches()[0] + 0.2)
    return min(max(6.0, room / (0.56 * len(text))), 8.0)
