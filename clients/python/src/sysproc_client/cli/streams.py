"""The standard streams as they may be: closed, full, or read by nobody any more.

What is printed is decided in `sysproc_client.cli.output`; those of a command inside are carried by
`sysproc_client.cli.session`.
"""

import errno
import os
import sys
from typing import NoReturn

NOBODY_READS = 141  # as a shell has it for SIGPIPE


def open_what_is_closed() -> None:
    """Give no file of ours the number of a standard stream. Writing to a closed output fails, as it would have."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError as failure:
            if failure.errno != errno.EBADF:
                raise
            os.open(os.devnull, flags)  # gets the lowest number that is free, which is this one
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def leave(code: int) -> NoReturn:
    """Exit without waiting for threads of gRPC: they may be blocked in a call that nobody waits for any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or NOBODY_READS
        except OSError:
            code = code or 1
    os._exit(code)
