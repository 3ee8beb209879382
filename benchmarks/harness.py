"""What all benchmarks share: a table on the screen, and the same table with its machine and command in
``benchmarks/results/``.

A script has a function that returns rows (dictionaries of the same keys) and calls ``report``. ``python
benchmarks/harness.py`` joins all results into ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def report(name: str, question: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> None:
    """Print the rows as Markdown and keep them as ``benchmarks/results/<name>.json`` with machine, threads, date and
    command."""
    record = {
        "name": name,
        "question": question,
        "command": " ".join(["python", *map(shlex.quote, sys.argv)]),
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": list(rows),
        "notes": list(notes),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(section(record))


def machine() -> str:
    """Processor, cores and operating system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def section(record: dict[str, Any]) -> str:
    """One result as Markdown: question, table, notes, and how it was made."""
    made = f"`{record['command']}` on {record['machine']}, {record['threads']} thread(s), torch {record['torch']}"
    notes = "".join(f"\n- {note}" for note in record["notes"])
    return f"## {record['question']}\n\n{table(record['rows'])}\n{notes}\n\n{made}, {record['date']}\n"


def table(rows: Sequence[Row]) -> str:
    """Rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(name, "")) for name in names) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Join all kept results into ``RESULTS.md``."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    head = (
        "# Measured results\n\nWritten by `python benchmarks/harness.py` from `benchmarks/results/`; each table "
        "names its command.\n\n"
    )
    (Path(__file__).parent / "RESULTS.md").write_text(head + "\n".join(section(record) for record in records))


if __name__ == "__main__":
    main()
