"""The files of cgroups: reading, writing, and the two formats that they have.

Which file means what is known by the controllers (`sysproc.isolation.cgroups.controllers`). A failure is an OSError
whose filename says what was to be written where.
"""

import os

UNLIMITED = ("max", "-1")
# What version 1 shows where nothing was set: the largest number of pages that fits (PAGE_COUNTER_MAX).
_NEARLY_INFINITE = 1 << 62


def read(path: str) -> str:
    """The text of a control file, without the last newline."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape").rstrip("\n")


def write(path: str, value: str | int) -> None:
    """Write a control file, in one call as the kernel wants it."""
    text = str(value)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, f"write {text!r} to {path}") from None
    finally:
        os.close(fd)


def write_if_present(path: str, value: str | int) -> None:
    """The same; nothing happens on a kernel without this file."""
    try:
        write(path, value)
    except FileNotFoundError:
        return


def parse_limit(text: str) -> int | None:
    """A limit as the kernel shows it; None is no limit."""
    if text in UNLIMITED:
        return None
    number = int(text)
    return None if number >= _NEARLY_INFINITE else number


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Lines of `key number`; lines of another form are left out."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal() and pair[1].isascii()}


def read_limit(path: str) -> int | None:
    """A control file that holds one limit."""
    return parse_limit(read(path))


def read_number_if_present(path: str) -> int | None:
    """A control file that holds one number; None on a kernel without this file."""
    try:
        return int(read(path))
    except FileNotFoundError:
        return None


def subdirectories(path: str) -> list[str]:
    """The names of the groups directly below; none if the group is gone."""
    try:
        if os.stat(path).st_nlink <= 2:  # kernfs counts directories
            return []
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
