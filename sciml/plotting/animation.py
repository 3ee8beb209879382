"""A rollout as an animated GIF: truth, prediction and error side by side."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import ArrayLike

from sciml.plotting import style
from sciml.plotting.gif import colours_of_maps, palette_of, snapshot, write_gif
from sciml.plotting.panels import draw, drawable, make_panels, per_cent
from sciml.plotting.sheet import make_box, make_sheet


def animate_rollout(
    truth: ArrayLike,
    prediction: ArrayLike,
    *,
    width: float,
    height: float,
    path: str | Path,
    origin: Sequence[float] = (0.0, 0.0),
    times: Sequence[float] | None = None,
    name: str | None = None,
    unit: str = "",
    length_unit: str = "m",
    time_unit: str = "s",
    title: str = "",
    frames_per_second: float = 6.0,
    pause: float = 1.5,
    dpi: int = 80,
) -> Path:
    """Write the frames of a rollout as a GIF that repeats, with ``pause`` seconds on the last frame.

    Arrays, scales and labels as in ``triptych``; the colour scales are those of all frames together. The
    pictures share one palette of 256 colours, which keeps a rollout of 20 frames near half a megabyte and
    free of flicker.

    Returns the path. Raises DataError for shapes that do not fit.
    """
    panels = make_panels(truth, prediction)
    label = name or ("field" if panels.signed else "speed")
    box = make_box(width, height, origin, unit=length_unit)
    factor, time_unit = style.readable_time(times, time_unit)
    with style.style():
        sheet = make_sheet([box], (2, 1), 2.4, heading=True)
        axes, figure = sheet.axes[0], sheet.figure
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        fields = (panels.truth, panels.prediction, panels.error)
        scales = [(panels.limits, panels.colour_map)] * 2 + [(panels.error_limits, panels.error_map)]
        shown = [draw(axis, field[0], box, *scale) for axis, field, scale in zip(axes, fields, scales, strict=True)]
        sheet.label_row(0, ("truth", "prediction", "error"))
        sheet.colour_bar(0, shown[0], label, unit, panels.extend)
        sheet.colour_bar(1, shown[2], panels.error_name, unit, panels.error_extend)
        heading = sheet.heading()
        palette = palette_of(colours_of_maps(panels.colour_map, panels.error_map))
        images = []
        for frame in range(len(panels.truth)):
            for image, field, (limits, _) in zip(shown, fields, scales, strict=True):
                image.set_data(drawable(field[frame].T, limits))
            time = f"frame {frame}" if times is None else f"t = {factor * times[frame]:.4g} {time_unit}"
            words = [title, time, f"relative L2 {per_cent(panels.relative_l2[frame])}"]
            heading.set_text("    ".join(word for word in words if word))
            images.append(snapshot(canvas, palette))
    return write_gif(images, path, frames_per_second, pause)
