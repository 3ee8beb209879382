"""Sheets of rows: panels of one quantity beside one another with their colour bars, and lines, placed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sciml.plotting import style
from sciml.plotting.latent.layout import Layout
from sciml.plotting.panels import Limits, colours_of, extend_of

Array = NDArray[np.float64]

LARGEST = 2.6
"""Inches of the longer side of a panel."""
LINE_HEIGHT = 2.0
GAP, BAR, BAR_LABEL = 0.32, 0.11, 0.95
LEFT, RIGHT, BOTTOM, TOP, ROW_GAP, HEADING = 0.8, 0.1, 0.5, 0.32, 0.8, 0.35


@dataclass(frozen=True)
class Panel:
    """Values ``(N,)`` under a title; ``dots``: places ``(M, 2)`` and, if known, the values observed there."""

    title: str
    values: Array
    dots: tuple[Array, Array | None] | None = None


@dataclass(frozen=True)
class Scale:
    """Panels that share a colour bar."""

    panels: Sequence[Panel]
    limits: Limits
    label: str
    unit: str
    colours: str = ""

    @property
    def colour_map(self) -> str:
        return self.colours or colours_of(self.limits)


@dataclass(frozen=True)
class Curve:
    """A line ``(N,)``, or a band between two (``values (2, N)``)."""

    label: str
    values: Array
    look: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Lines:
    """Curves in one diagram; ``width``: its part of the sheet."""

    title: str
    curves: Sequence[Curve]
    ylabel: str
    limits: Limits | None = None
    width: float = 1.0


@dataclass(frozen=True)
class Row:
    """A row of the sheet: scales with their panels, or diagrams of lines."""

    layout: Layout
    content: Sequence[Scale] | Sequence[Lines]

    @property
    def height(self) -> float:
        if self.layout.is_line:
            return LINE_HEIGHT
        return LARGEST * min(1.0, self.layout.proportion)

    @property
    def panel_width(self) -> float:
        return LARGEST * min(1.0, 1 / self.layout.proportion)

    @property
    def width(self) -> float:
        """0 of a row of lines, which is as wide as the others."""
        if self.layout.is_line:
            return 0.0
        counts = [len(scale.panels) for scale in self.content]
        return sum(n * self.panel_width + (n - 1) * GAP + 0.1 + BAR + BAR_LABEL for n in counts)


def draw_rows(rows: Sequence[Row], title: str = "", least_width: float = 7.0) -> Figure:
    """A figure with the rows below one another; its style is that of the caller's context."""
    wide = max(least_width, *(row.width for row in rows))
    heights = [row.height for row in rows]
    size = (LEFT + wide + RIGHT, BOTTOM + sum(heights) + ROW_GAP * (len(rows) - 1) + TOP + HEADING * bool(title))
    figure = style.new_figure(*size)
    figure.set_layout_engine("none")

    def place(x: float, y: float, dx: float, dy: float) -> Axes:
        return figure.add_axes((x / size[0], y / size[1], dx / size[0], dy / size[1]))

    y = size[1] - TOP - HEADING * bool(title)
    for row, height in zip(rows, heights, strict=True):
        y -= height
        if row.layout.is_line:
            _lines(row, y, wide, height, place)
        else:
            _panels(figure, row, y, height, place)
        y -= ROW_GAP
    if title:
        figure.text(0.15 / size[0], 1 - 0.12 / size[1], title, ha="left", va="top", fontsize=11)
    return figure


def _panels(figure: Figure, row: Row, y: float, height: float, place) -> None:
    x = LEFT
    for number, scale in enumerate(row.content):
        for column, panel in enumerate(scale.panels):
            axes = place(x, y, row.panel_width, height)
            image = row.layout.draw(axes, panel.values, scale.limits, scale.colour_map)
            axes.set_title(panel.title, loc="left", pad=4)
            if number or column:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            if panel.dots is not None:
                _dots(axes, *panel.dots, scale)
            x += row.panel_width + GAP
        x += 0.1 - GAP
        extend = extend_of(np.concatenate([panel.values for panel in scale.panels]), scale.limits)
        bar = figure.colorbar(
            image, cax=place(x, y, BAR, height), extend=extend, label=style.with_unit(scale.label, scale.unit)
        )
        bar.outline.set_visible(False)
        bar.formatter.set_powerlimits((-3, 4))
        x += BAR + BAR_LABEL


def _dots(axes: Axes, places: Array, values: Array | None, scale: Scale) -> None:
    """Sensors, smaller where there are many; in the colour of what they saw, where that is known."""
    limits = axes.get_xlim(), axes.get_ylim()
    size = float(np.clip(1800 / max(len(places), 1), 5, 26))
    # The middle of a diverging map is white, as the dots of a sequential map's rim.
    seen = values is not None and scale.colour_map != style.DIVERGING
    rim = {"edgecolors": "white", "linewidths": 0.7} if seen else {"edgecolors": style.INK, "linewidths": 0.4}
    look = {"s": size, "clip_on": False, "zorder": 3, **rim}
    if values is None:
        axes.scatter(*places.T, **look, color="white")
    else:
        axes.scatter(*places.T, c=values, cmap=scale.colour_map, vmin=scale.limits[0], vmax=scale.limits[1], **look)
    axes.set(xlim=limits[0], ylim=limits[1])


def _lines(row: Row, y: float, wide: float, height: float, place) -> None:
    total = sum(each.width for each in row.content)
    room = wide - 0.85 * (len(row.content) - 1)
    x, at = LEFT, row.layout.points[:, 0]
    order = np.argsort(at)
    for each in row.content:
        width = room * each.width / total
        axes = place(x, y, width, height)
        for curve in each.curves:
            if curve.values.ndim == 2:
                axes.fill_between(at[order], *curve.values[:, order], label=curve.label, linewidth=0, **curve.look)
            else:
                axes.plot(at[order], curve.values[order], label=curve.label, **curve.look)
        (low, high) = row.layout.extent[0]
        axes.set(xlim=(low, high), xlabel=f"{row.layout.axes[0]} (m)", ylabel=each.ylabel)
        if each.limits is not None:
            axes.set_ylim(*each.limits)
        axes.set_title(each.title, loc="left", pad=4)
        style.light_grid(axes)
        if any(not curve.label.startswith("_") for curve in each.curves):
            axes.legend(loc="best")
        x += width + 0.85
