"""Processes: execveat(2), and the start time that, with the pid, names a process for good.

Clones are in `sysproc.linux.namespaces`, pidfds in `sysproc.linux.pidfd`.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import NoReturn

from sysproc.linux.libc import encode, number_of, syscall
from sysproc.linux.mounts import AT_EMPTY_PATH

_START_TIME = 22 - 3  # field 22 of /proc/PID/stat, counted from field 3, after the name in parentheses


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), field 22); None if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    return int(text[text.rindex(b")") + 2 :].split()[_START_TIME])


def execveat(fd: int, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """execveat(2) with AT_EMPTY_PATH, Linux 3.19: become the program that the fd holds."""
    args = (ctypes.c_char_p * (len(argv) + 1))(*map(encode, argv), None)
    variables = [encode(f"{name}={value}") for name, value in environment.items()]
    envp = (ctypes.c_char_p * (len(variables) + 1))(*variables, None)
    syscall("execveat", number_of("execveat"), fd, b"", args, envp, AT_EMPTY_PATH, target=argv[0])
    os._exit(127)  # not reached: execveat returns on failure only, as an exception
