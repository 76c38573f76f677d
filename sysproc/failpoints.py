"""Failpoints: named places in every verb where a test makes the process fail, stop or die.

    SYSPROC_FAILPOINTS="containers.create.after_mount=kill;storage.clone.before_sync=delay(0.2)"
    SYSPROC_FAILPOINTS="@/path"     the same in a file, which is read again whenever it was replaced

    raise        OSError(EIO) is raised there
    kill         the process kills itself with SIGKILL
    delay(S)     sleeps S seconds
    touch(PATH)  creates PATH: it was here
    block(PATH)  creates PATH, and goes on once PATH has been removed (the test kills something meanwhile)

A term may begin with `N*`: it acts the first N times only. Off, a failpoint costs two tests that are false.
The names are found by reading the sources (tests/crash), so each is written as a literal. Only test hooks belong here.
"""

import errno
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

VARIABLE = "SYSPROC_FAILPOINTS"
_TERM = re.compile(r"(?:(?P<times>\d+)\*)?(?P<action>raise|kill|delay|touch|block)(?:\((?P<argument>[^)]*)\))?")


def _raise(name: str, _: str) -> None:
    raise OSError(errno.EIO, "failpoint", name)


def _kill(_: str, __: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _delay(_: str, seconds: str) -> None:
    time.sleep(float(seconds))


def _touch(_: str, path: str) -> None:
    """Where it is already, it may be another user's: that is enough."""
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return


def _block(_: str, path: str) -> None:
    marker = Path(path)
    marker.touch()
    while marker.exists():
        time.sleep(0.005)


_ACTIONS: dict[str, Callable[[str, str], None]] = {
    "raise": _raise,
    "kill": _kill,
    "delay": _delay,
    "touch": _touch,
    "block": _block,
}


class _Armed:
    """One armed failpoint: what it does, and how often still (None: always)."""

    def __init__(self, name: str, term: str) -> None:
        match = _TERM.fullmatch(term)
        if match is None:
            raise ValueError(f"{VARIABLE}: cannot read {term!r} of {name!r}")
        self._name, self._act = name, _ACTIONS[match["action"]]
        self._argument, self._left = match["argument"] or "", int(match["times"]) if match["times"] else None

    def __call__(self) -> None:
        if self._left is not None:
            if self._left == 0:
                return
            self._left -= 1
        self._act(self._name, self._argument)


def _parse(text: str) -> dict[str, _Armed]:
    pairs = (item.split("=", 1) for item in text.split(";") if item)
    return {name: _Armed(name, term) for name, term in pairs}


class _File:
    """Where a test writes what is armed. A process that cannot see it any more keeps what it has read."""

    def __init__(self, path: str) -> None:
        self._path, self._seen = path, (0, 0)

    def look(self) -> None:
        """Arm what is in it, if it is another than before."""
        try:
            found = os.stat(self._path)
            if (found.st_ino, found.st_mtime_ns) != self._seen:
                self._seen = found.st_ino, found.st_mtime_ns
                arm(Path(self._path).read_text())
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
                raise


_said = os.environ.get(VARIABLE, "")
_file = _File(_said[1:]) if _said.startswith("@") else None
_armed = _parse("" if _file else _said)


def arm(text: str) -> None:
    """Replace what is armed, in the variable's syntax; an empty text disarms all. Raises ValueError."""
    global _armed  # noqa: PLW0603 - one switchboard a process is the point
    _armed = _parse(text)


def failpoint(name: str) -> None:
    """A step of a verb ends here; act if a test has armed this name."""
    if _file is not None:
        _file.look()
    if _armed and (armed := _armed.get(name)) is not None:
        armed()
