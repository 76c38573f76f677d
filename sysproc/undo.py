"""Undo: an exit stack whose first failure stays the one that is raised.

For code that acquires several things in turn: each acquire is followed by the line that registers its undo.
What is to be kept on success is handed over with `pop_all()`.
"""

from collections.abc import Callable
from contextlib import ExitStack


class Undo(ExitStack):
    """Undoes in reverse order; the first failure stays the one raised, later ones become notes on it."""

    def add(self, what: str, step: Callable[..., object], *args: object) -> None:
        """Register `step(*args)` to undo `what`; its own failure is noted beside the first one."""

        def run(_: object, first: BaseException | None, __: object) -> None:
            try:
                step(*args)
            except Exception as later:
                if first is None:
                    raise
                first.add_note(f"undoing {what} failed too: {later!r}")

        self.push(run)
