"""What the commands print, and where: results on stdout, everything else on stderr."""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def is_main_process() -> bool:
    """Under ``torchrun`` every process runs the command; one speaks."""
    return os.environ.get("RANK", "0") == "0"


def console(*, stderr: bool = False) -> "Console":
    """A rich console on the stream as it is now (tests and callers redirect them)."""
    from rich.console import Console

    return Console(file=sys.stderr if stderr else sys.stdout, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(content: Any) -> None:
    """Machine output: one JSON document on stdout. JSON has no NaN and no infinity; they become null."""
    print(json.dumps(_plain(content), indent=2, allow_nan=False))


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple, set, frozenset)):
        return [_plain(value) for value in content]
    if isinstance(content, bool | int | str | None):
        return content
    try:
        number = float(content)
    except (TypeError, ValueError):
        return str(content)
    return number if math.isfinite(number) else None


def print_pairs(pairs: Mapping[str, Any], indent: str = "") -> None:
    """Names and values in two columns on stdout."""
    wide = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        print(f"{indent}{name:<{wide}}  {value}")


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", numbers_from: int = 1
) -> "Table":
    """A rich table; columns from ``numbers_from`` on are flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title or None,
        title_justify="left",
        title_style="none",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for number, heading in enumerate(headings):
        justify = "right" if number >= numbers_from else "left"
        table.add_column(heading, justify=justify, no_wrap=number >= numbers_from, overflow="fold", vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table
