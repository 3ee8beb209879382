"""The table of a run on a weak problem: errors of each field, on the same mesh and against a finer one."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from sciml.cli.console import make_table

INPUT = "decoded input"


def latent_table(operator: str, test: Mapping[str, Any]) -> "Table":
    """A rich table of a ``test`` entry: a row a field, and one of the input function as it is decoded."""
    finer = test.get("relative_l2_against_finer") or {}
    rows = [
        [name, operator, _text(mean), _text(test["worst_relative_l2"].get(name)), _text(finer.get(name))]
        for name, mean in test["relative_l2"].items()
    ]
    rows.append([INPUT, "", _text(test["input"]["relative_l2"]), "–", "–"])
    headings = ["field", "method", "rel. L2", "worst\ncase"]
    if finer:
        headings.append(f"against {test.get('finer', '')} times\nfiner mesh")
    else:
        rows = [row[:-1] for row in rows]
    if (wrong := test["input"].get("wrong")) is not None:
        headings.append("wrong\nvalue")
        rows = [[*row, f"{100 * wrong:.3g} %" if row[0] == INPUT else "–"] for row in rows]
    title = f"{test['cases']} held-out cases; relative L2 errors; less is better\n"
    return make_table(headings, rows, title, numbers_from=2)


def latent_next_steps(directory: Path) -> str:
    """What to do with a finished run, to copy and paste."""
    return f"""Next:
  python -c "import sciml; print(sciml.load('{directory}'))"      your own code: surrogate.solve, .invert
  sciml invert {directory} --observations obs.csv
  sciml predict {directory} --input inputs.npy --out predicted.npz
  sciml plot {directory}"""


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
