"""The directories of the daemon: made where they are missing, or refused in words before anything else is done.

Who has them for himself is in `sysproc.server.claims`; what is in them, in the modules that put it there.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from sysproc.errors import FailedPrecondition
from sysproc.undo import Undo

# Each with the option that names it.
Named = tuple[Path, str]


def make_directories(wanted: Sequence[Named]) -> None:
    """Make what is missing of these, for root only; of none if one cannot be used. Raises FailedPrecondition."""
    with Undo() as undo:
        for path, option in wanted:
            try:
                make(path, undo)
            except OSError as failure:
                raise unusable(path, option, reason_of(failure)) from failure
            if not os.access(path, os.W_OK | os.X_OK):
                raise unusable(path, option, "it cannot be written to")
        undo.pop_all()


def make(path: Path, undo: Undo) -> None:
    """Make a directory and those above it, from the top, so that what is in the way is named."""
    for directory in (*reversed(path.parents), path):
        if not directory.is_dir():
            directory.mkdir(mode=0o700)
            undo.add(f"the directory {directory}", directory.rmdir)


def reason_of(failure: OSError) -> str:
    """What is in the way."""
    if failure.errno == errno.EEXIST:
        return f"{failure.filename} is no directory"
    return f"{failure.filename}: {failure.strerror}"


def unusable(path: Path, option: str, why: str) -> FailedPrecondition:
    """The error for a directory that is none, or cannot be written."""
    return FailedPrecondition(
        f"The directory {path} of {option} cannot be used: {why}.",
        resolution=f"Name another by {option}, on a filesystem that can be written, or mend that one.",
        reason="DIRECTORY_UNUSABLE",
        metadata={"path": str(path), "option": option},
    )
