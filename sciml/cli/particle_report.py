"""The table of a particle run: the surrogate beside extrapolation, over all held-out scenes and by subset."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from sciml.cli.console import make_table

BALANCE = (
    ("one-step\nNMSE", "nmse"),
    ("Chamfer", "chamfer"),
    ("Sinkhorn", "sinkhorn"),
    ("momentum\ndrift", "momentum_drift"),
    ("energy\ndrift", "energy_drift"),
    ("volume\ndrift", "volume_drift"),
)
PATHS = (
    ("dense", "{}, all particles"),
    ("sparse", "{}, stepped particles"),
    ("upsampled_truth", "all, from true sparse points"),
    ("constant_velocity", "constant velocity"),
    ("constant_velocity_contained", "… stopped by the walls"),
    ("constant_acceleration", "constant acceleration"),
    ("constant_acceleration_contained", "… stopped by the walls"),
)
BY_SUBSET = (
    ("dense", "{}"),
    ("upsampled_truth", "from true\nsparse points"),
    ("constant_velocity", "constant\nvelocity"),
    ("constant_velocity_contained", "… with\nwalls"),
    ("constant_acceleration", "constant\nacceleration"),
)


def particle_tables(operator: str, test: Mapping[str, Any]) -> "list[Table]":
    """Rich tables of a ``test`` entry: rollout errors, the same by subset, and what a rollout should keep."""
    known = [(key, label.format(operator)) for key, label in PATHS if key in test]
    rows = [[label, _text(test[key]), _text(test.get(f"{key}_last"))] for key, label in known]
    title = f"{test['cases']} held-out scenes: rollout error relative to displacement; less is better\n"
    tables = [make_table(["method", "all frames", "at the end"], rows, title, numbers_from=1)]
    subsets = test.get("per_subset") or {}
    if len(subsets) > 1:
        shown = [(key, heading) for key, heading in BY_SUBSET if key in test]
        rows = [
            [f"{name} ({values['cases']})", *(_text(values.get(key)) for key, _ in shown)]
            for name, values in subsets.items()
        ]
        headings = ["scenes", *(heading.format(operator) for _, heading in shown)]
        tables.append(make_table(headings, rows, "By subset, all frames\n", numbers_from=1))
    kept = [(heading, test[key]) for heading, key in BALANCE if key in test]
    row = [operator, *(_text(value) for _, value in kept), _text(test.get("seconds_per_step"))]
    headings = ["", *(heading for heading, _ in kept), "seconds\na step"]
    title = "Distances are relative to displacement, drifts to the truth's scale\n"
    return [*tables, make_table(headings, [row], title, numbers_from=1)]


def particle_next_steps(directory: Path) -> str:
    """What to do with a finished run, to copy and paste."""
    return f"""Next:
  python -c "import sciml; print(sciml.load('{directory}'))"      your own code: surrogate.dense_rollout
  sciml plot {directory} --vtk paraview
  sciml predict {directory} --input scenes.h5 --out predicted.h5"""


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
