"""Progress on stderr: bars on a terminal, otherwise only the lines that matter."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from sciml.cli.console import console, is_main_process, say
from sciml.progress import Progress


class RichProgress(Progress):
    """Bars with time left, one below another for phases within phases; use as a context manager.

    Where stderr is not a terminal (a log file, a batch job) only ``message`` writes. Under ``torchrun`` the
    first process speaks for all.
    """

    def __init__(self) -> None:
        self._main = is_main_process()
        self._display = None
        self._tasks: list[int] = []
        if self._main and sys.stderr.isatty():
            from rich.progress import (
                BarColumn,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Display

            self._display = Display(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> "RichProgress":
        if self._display is not None:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Also after an error: a bar that is left running eats the message and hides the cursor.
        if self._display is not None:
            self._display.stop()

    @contextmanager
    def phase(self, title: str, total: float) -> Iterator[None]:
        """A bar of ``total`` units; when the phase ends well its title and duration stay on the screen."""
        if self._display is None:
            yield
            return
        from rich.markup import escape

        task = self._display.add_task(escape(title), total=total, note="")
        self._tasks.append(task)
        started = time.monotonic()
        try:
            yield
        finally:
            self._tasks.pop()
            self._display.remove_task(task)
        self.message(f"{title}: done in {_duration(time.monotonic() - started)}")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move the innermost bar."""
        if self._display is not None and self._tasks:
            from rich.markup import escape

            self._display.update(self._tasks[-1], advance=amount, note=escape(note))

    def message(self, text: str) -> None:
        """A line above the bars."""
        if self._display is not None:
            self._display.console.print(text, soft_wrap=True)
        elif self._main:
            say(text)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"
