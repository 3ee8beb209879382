"""Particles as an animated GIF: truth and predictions side by side."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg

from sciml.plotting import style
from sciml.plotting.gif import palette_of, snapshot, write_gif
from sciml.plotting.particles.clouds import Cloud, Scene
from sciml.plotting.particles.colours import colouring_of
from sciml.plotting.particles.panel import PointPanel
from sciml.plotting.particles.view import view_of
from sciml.plotting.sheet import make_sheet

MOST_FRAMES = 60
MOST_POINTS = 4000
"""A panel has about 40,000 pixels."""
PANEL = 2.6
"""Inches of the longest side of a panel; of a single one 1.5 times as many."""


def animate_particles(
    clouds: Sequence[Cloud],
    scene: Scene,
    *,
    path: str | Path,
    title: str = "",
    frames_per_second: float = 12.0,
    pause: float = 1.5,
    dpi: int = 80,
) -> Path:
    """Write clouds (the truth first) of one scene as a GIF that repeats, with ``pause`` seconds on the last frame.

    Colours as in ``particle_frames``. At most 60 frames, evenly from the first to the last, and 4,000 points a panel:
    a rollout of hundreds of frames and any number of particles is drawn in seconds.

    Returns the path.
    """
    view = view_of(scene)
    frames = style.spread(len(clouds[0].position), MOST_FRAMES)
    clouds = [cloud.thin(MOST_POINTS) for cloud in clouds]
    factor, unit = style.readable_time([scene.interval * frames[-1]], "s")
    with style.style():
        sheet = make_sheet([view.box], (len(clouds),), PANEL if len(clouds) > 1 else 1.5 * PANEL, heading=True)
        sheet.figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(sheet.figure)
        colouring = colouring_of(clouds, scene, frames)
        axes = sheet.axes[0]
        panels = [
            PointPanel(axis, cloud, view, colouring, labels=number == 0)
            for number, (axis, cloud) in enumerate(zip(axes, clouds, strict=True))
        ]
        sheet.label_row(0, [cloud.name for cloud in clouds])
        colouring.key(sheet)
        heading = sheet.heading()
        palette = palette_of(colouring.palette())
        images = []
        for frame in frames:
            for axis, panel in zip(axes, panels, strict=True):
                panel.show(frame)
                words = (panel.cloud.name, panel.cloud.remark(frame) or panel.cloud.note)
                axis.set_title(", ".join(word for word in words if word), loc="left", pad=4, fontsize=9)
            heading.set_text("    ".join(w for w in (title, f"t = {factor * scene.interval * frame:.3f} {unit}") if w))
            images.append(snapshot(canvas, palette))
    return write_gif(images, path, frames_per_second, pause)
