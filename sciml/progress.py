"""What long work says while it runs. The base class is silent; the command line shows it with rich."""

from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Silent progress: subclasses show it. Work calls ``phase``, then ``advance``, and ``message`` for a line."""

    @contextmanager
    def phase(self, title: str, total: float) -> Iterator[None]:
        """A stretch of work of ``total`` units, e.g. ``with progress.phase("generate", n_cases): ...``."""
        yield

    def advance(self, amount: float = 1, note: str = "") -> None:
        """``amount`` more units of the current phase are done; ``note`` is shown beside the bar."""

    def message(self, text: str) -> None:
        """A line that stays on the screen."""
