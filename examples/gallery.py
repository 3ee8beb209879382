"""Solve one case of every problem and draw them on one sheet: docs/problems.png.

python examples/gallery.py [problems.png]
"""

import itertools
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

from sciml.problems import PROBLEMS, get_problem

SHOWN = {
    "burgers": ("pdebench", "velocity"),
    "cavity": ("bc", "velocity"),
    "cylinder": ("geo", "velocity"),
    "dam": ("geo", "volume_fraction"),
    "darcy": ("fno", "pressure"),
    "diffusion_sorption": ("soil", "concentration"),
    "gray_scott": ("maze", "species_b"),
    "periodic_flow": ("random", "velocity"),
    "tube": ("bc", "velocity"),
    "two_phase_tube": ("bc", "volume_fraction"),
    "vorticity": ("kolmogorov", "vorticity"),
}


def image(name: str) -> tuple[torch.Tensor, list[float], str]:
    """An image ``(x, y)`` of the last frame (in 3D its middle plane, in 1D space and time), its box and a title."""
    problem, (subset, shown_field) = get_problem(name), SHOWN[name]
    sample = problem.sample(1, subset, seed=2)
    with torch.inference_mode():
        trajectory = problem.solve(sample.parameters)
    field = trajectory[shown_field][0].double()
    sides = problem.lengths(sample.parameters)[0].tolist()
    shown = field.norm(dim=1) if field.shape[1] > 1 else field[:, 0]  # the speed of a velocity
    title = f"{name} {problem.dim}D: {'speed' if field.shape[1] > 1 else shown_field}"
    if problem.dim == 1:
        return shown.mT, [0, sides[0], 0, float(trajectory["time"][0, -1])], f"{title}(x, t)"
    last = shown[-1]
    if problem.dim == 3:
        last = last[..., last.shape[-1] // 2]
    return last, [0, sides[0], 0, sides[1]], title


def main(path: Path = Path("problems.png")) -> Path:
    figure = Figure(figsize=(14, 9.6), layout="constrained")
    places = figure.subplots(3, 4).flat
    for axes, name in itertools.zip_longest(places, sorted(PROBLEMS)):
        if name is None:
            axes.remove()
            continue
        values, box, title = image(name)
        signed = values.min() < -1e-6 * values.abs().max() and values.max() > 0
        colours = "RdBu_r" if signed else "viridis"
        largest = float(values.abs().max()) if colours == "RdBu_r" else None
        limits = {"vmin": -largest, "vmax": largest} if largest else {}
        shown = axes.imshow(values.mT.numpy(), origin="lower", extent=box, aspect="auto", cmap=colours, **limits)
        figure.colorbar(shown, ax=axes)
        axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=90)
    return path


if __name__ == "__main__":
    print(main(*(Path(each) for each in sys.argv[1:])))
