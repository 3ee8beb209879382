"""The sheet that panels are drawn on: boxes in their true proportion, colour bars and labels, placed by hand.

Automatic layouts leave gaps beside panels of fixed proportion and shift between the frames of an animation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.text import Text

from sciml.plotting import style

STACKED_FROM = 2.5
"""Boxes that are longer than this many heights are drawn below one another and not beside one another."""
TALLEST = 10.0
"""Inches that a stack of panels may take before its panels get smaller."""


@dataclass(frozen=True)
class Box:
    """A rectangle of space with the names of its axes, in ``unit``."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    names: tuple[str, str] = ("x", "y")
    unit: str = "m"

    @property
    def extent(self) -> tuple[float, float, float, float]:
        return self.x, self.x + self.width, self.y, self.y + self.height


def make_box(
    width: float,
    height: float,
    origin: Sequence[float] = (0.0, 0.0),
    names: tuple[str, str] = ("x", "y"),
    unit: str = "m",
) -> Box:
    """The box in a readable unit of length."""
    scaled_width, scaled_height, scaled_unit = readable_length(width, height, unit)
    factor = scaled_width / width
    return Box(scaled_width, scaled_height, factor * origin[0], factor * origin[1], names, scaled_unit)


def readable_length(width: float, height: float, unit: str) -> tuple[float, float, str]:
    """The box in millimetres when it is given in metres and small, so that ticks read 5 and not 0.005."""
    if unit == "m" and min(width, height) < 0.1 and max(width, height) < 1:
        return 1e3 * width, 1e3 * height, "mm"
    return width, height, unit


@dataclass(frozen=True)
class Sheet:
    """``axes[row][column]``, and the axes of the colour bars, one for each group of columns."""

    figure: Figure
    axes: list[list[Axes]]
    bars: list[Axes]
    boxes: list[Box]
    stacked: bool

    def heading(self, text: str = "") -> Text:
        """The line over everything."""
        size = self.figure.get_size_inches()
        return self.figure.text(0.15 / size[0], 1 - 0.12 / size[1], text, ha="left", va="top", fontsize=11)

    def colour_bar(self, group: int, image: ScalarMappable, label: str, unit: str, extend: str = "neither") -> None:
        """The scale of a group of columns, with its unit."""
        text = style.with_unit(label, unit)
        bar = self.figure.colorbar(image, cax=self.bars[group], extend=extend, label=text)
        bar.outline.set_visible(False)
        if not isinstance(image.norm, LogNorm):
            bar.formatter.set_powerlimits((-3, 4))

    def label_row(self, row: int, heads: Sequence[str], note: str = "", every: Sequence[int] = ()) -> None:
        """Titles of the panels of a row and of its axes; ``note`` says what the row is (its time, say).

        Beside one another the heads stand over the first row only, except for the columns in ``every``.
        """
        box, axes = self.boxes[row], self.axes[row]
        last = row == len(self.axes) - 1
        for column, (axis, head) in enumerate(zip(axes, heads, strict=True)):
            if self.stacked:
                axis.set_title(f"{head}, {note}" if note else head, loc="left", pad=4)
                axis.set_ylabel(f"{box.names[1]} ({box.unit})")
            elif row == 0 or column in every:
                axis.set_title(head, loc="left", pad=4)
            if axis.xaxis.get_tick_params()["labelbottom"] and (not self.stacked or (last and axis is axes[-1])):
                axis.set_xlabel(f"{box.names[0]} ({box.unit})")
        if not self.stacked:
            axes[0].set_ylabel(f"{box.names[1]} ({box.unit})")
            where = {"xycoords": "axes fraction", "textcoords": "offset points", "rotation": 90, "va": "center"}
            if note:
                axes[0].annotate(note, (0, 0.5), (-50, 0), ha="center", **where)


def make_sheet(
    boxes: Sequence[Box], groups: Sequence[int], largest: float, heading: bool, *, may_stack: bool = True
) -> Sheet:
    """An empty sheet: a row for each box with ``sum(groups)`` panels, a colour bar after each group of columns.

    The longest side of all boxes is ``largest`` inches. Long, low boxes (a channel) are stacked instead: every panel
    has the width of the sheet, and the colour bars stand at the right below one another; ``may_stack=False`` keeps the
    rows where a stack of so many panels would be too tall.
    """
    stacked = may_stack and all(box.width >= STACKED_FROM * box.height for box in boxes)
    return (_stack if stacked else _grid)(boxes, groups, largest, heading)


def _grid(boxes: Sequence[Box], groups: Sequence[int], largest: float, heading: bool) -> Sheet:
    scale = largest / max(max(box.width, box.height) for box in boxes)
    # Very thin boxes get a panel in which their labels still have room; the box keeps its proportion inside.
    w = max(max(box.width * scale, 0.4 * largest) for box in boxes)
    heights = [max(box.height * scale, 0.3 * largest) for box in boxes]
    alike = all(box == boxes[0] for box in boxes)
    left, right, bottom, top, gap, bar, bar_label = 0.9, 0.05, 0.5, 0.3 + 0.35 * heading, 0.24, 0.11, 0.82
    row_gap = 0.3 if alike else 0.75
    columns, bar_places, x = [], [], left
    for group in groups:
        columns += [x + number * (w + gap) for number in range(group)]
        bar_places.append(columns[-1] + w + 0.1)
        x = bar_places[-1] + bar + bar_label
    total_width, panels_height = x + right, sum(heights) + (len(boxes) - 1) * row_gap
    total_height = bottom + panels_height + top
    figure, place = _blank(total_width, total_height)
    axes, y = [], bottom + panels_height
    for row, height in enumerate(heights):
        y -= height
        axes.append([place(x, y, w, height) for x in columns])
        y -= row_gap
        for column, axis in enumerate(axes[-1]):
            axis.tick_params(labelleft=column == 0, labelbottom=not alike or row == len(boxes) - 1)
    bar_height = min(panels_height, 2 * heights[0] + row_gap)
    bar_bottom = bottom + (panels_height - bar_height) / 2
    bars = [place(x, bar_bottom, bar, bar_height) for x in bar_places]
    return Sheet(figure, axes, bars, list(boxes), stacked=False)


def _stack(boxes: Sequence[Box], groups: Sequence[int], largest: float, heading: bool) -> Sheet:
    columns = sum(groups)
    panels = len(boxes) * columns
    longest = max(box.width for box in boxes)
    proportion = max(box.height for box in boxes) / longest
    left, right, bottom, top, gap, bar, bar_label = 0.75, 0.05, 0.5, 0.3 + 0.35 * heading, 0.32, 0.11, 0.85
    room = (TALLEST - bottom - top - panels * gap) / panels
    w = min(max(room / proportion, 1.6 * largest), 2.8 * largest)
    heights = [max(box.height * w / longest, 0.35) for box in boxes]
    total_width = left + w + 0.15 + bar + bar_label + right
    panels_height = columns * sum(heights) + (panels - 1) * gap
    total_height = bottom + panels_height + top
    figure, place = _blank(total_width, total_height)
    axes: list[list[Axes]] = []
    y = bottom + panels_height
    for height in heights:
        axes.append([])
        for _ in range(columns):
            y -= height
            axes[-1].append(place(left, y, w, height))
            axes[-1][-1].tick_params(labelbottom=False)
            y -= gap
    axes[-1][-1].tick_params(labelbottom=True)
    share = (panels_height - (len(groups) - 1) * 0.3) / len(groups)
    tall = min(share, 2.6)
    tops = [bottom + panels_height - number * (share + 0.3) for number in range(len(groups))]
    bars = [place(left + w + 0.15, each - (share + tall) / 2, bar, tall) for each in tops]
    return Sheet(figure, axes, bars, list(boxes), stacked=True)


def _blank(width: float, height: float) -> tuple[Figure, Callable[[float, float, float, float], Axes]]:
    """A figure, and the function that places axes in it, in inches."""
    figure = style.new_figure(width, height)
    figure.set_layout_engine("none")

    def place(x: float, y: float, dx: float, dy: float) -> Axes:
        return figure.add_axes((x / width, y / height, dx / width, dy / height))

    return figure, place
