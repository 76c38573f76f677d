"""How events are written: for people on a terminal, as JSON lines for everything else. To stderr.

What is logged, and at which level, is decided where it happens.
"""

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


class WhileThereIsRoom:
    """A stream on which a full disk loses lines, or delays them; whoever writes them notices nothing."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """As of a text stream."""
        with unless_full():
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        """As of a text stream."""
        with unless_full():
            self._out.flush()


@contextmanager
def unless_full() -> Iterator[None]:
    """ENOSPC and EDQUOT end nothing: a call must not fail because nobody can read about it."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def configure(form: str, level: str, out: TextIO = sys.stderr) -> None:
    """Set up structlog for this process. form: console, json, or auto (console on a terminal)."""
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not console),
    ]
    # Tracebacks without local variables: environments and input are there, and may be secrets.
    plain = structlog.dev.plain_traceback
    bare = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    ending: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=plain)]
        if console
        else [bare, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, WhileThereIsRoom(out))),
        cache_logger_on_first_use=True,
    )
    # Of the libraries (asyncio, grpc) only what goes wrong.
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
