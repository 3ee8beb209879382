"""Animated GIFs of small size, without flicker: all pictures share one palette that is chosen beforehand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import ArrayLike
from PIL import Image

from sciml.plotting import style

GREYS = 32
"""Colours that are kept for lettering, ticks and grey points."""


def colours_of_maps(*colour_maps: str) -> np.ndarray:
    """Colours ``(n, 3)`` of colour maps, evenly from end to end, as many as a palette has room for."""
    share = (256 - GREYS) // len(colour_maps)
    return np.concatenate([style.colour_map(name)(np.linspace(0, 1, share))[:, :3] for name in colour_maps])


def palette_of(colours: ArrayLike) -> Image.Image:
    """A palette of the given colours ``(n, 3)`` in 0..1, at most 224, and of 32 greys.

    Not more greys: Pillow looks colours up coarsely, and white would become the grey beside it. A palette made
    from the pictures spends its colours where the area is and merges the ends of the colour bars.
    """
    given = np.asarray(colours, dtype=np.float64)
    greys = np.repeat(np.linspace(0, 1, GREYS)[:, None], 3, axis=1)
    rest = np.ones((256 - GREYS - len(given), 3))
    image = Image.new("P", (1, 1))
    image.putpalette(np.rint(255 * np.concatenate([given, greys, rest])).astype(np.uint8).tobytes())
    return image


def snapshot(canvas: FigureCanvasAgg, palette: Image.Image) -> Image.Image:
    """What the canvas shows now, in the colours of the palette."""
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def write_gif(images: Sequence[Image.Image], path: str | Path, frames_per_second: float, pause: float) -> Path:
    """Write the pictures as a GIF that repeats, with ``pause`` seconds on the last one; returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    duration = [round(1000 / frames_per_second)] * (len(images) - 1) + [round(1000 * pause)]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0, optimize=False
    )
    return path
