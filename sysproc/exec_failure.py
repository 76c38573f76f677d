"""Why a process could not be started, in words: the supervisor tells a step, an errno, a path and what the file is.

    127   the command is not there                     126   it is there and cannot be executed

What the supervisor finds out is in `exec_explain.c`; a wrong request that never came so far is an error of the call.
"""

import errno
import os

from sysproc.isolation.exec_state import Failure, Step

# e_machine of elf(5) and the names that people use.
MACHINES = {
    2: "SPARC",
    3: "x86 (32 bit)",
    8: "MIPS",
    20: "PowerPC",
    21: "PowerPC64",
    22: "S/390",
    40: "ARM (32 bit)",
    43: "SPARC V9",
    62: "x86-64",
    183: "ARM64 (aarch64)",
    243: "RISC-V",
    258: "LoongArch",
}
_OURS = {"x86_64": "x86-64", "aarch64": "ARM64 (aarch64)", "riscv64": "RISC-V", "ppc64le": "PowerPC64"}

_STEPS = {
    Step.SPEC: "read what to start",
    Step.PIPES: "make its pipes",
    Step.ENTER_PIDS: "enter the container: it has just ended",
    Step.CLONE: "make a process: a limit of the container or of the host is reached",
    Step.CGROUP: "join the container's cgroups: it has just ended",
    Step.LIMITS: "set its limits",
    Step.NAMESPACES: "enter the container's namespaces: it has just ended",
    Step.TERMINAL: "make a terminal: /dev/pts of the container is not its own, or full",
    Step.STDIO: "set its input and output",
    Step.USER: "become the user",
    Step.SECCOMP: "load the system call filter",
}


def failure_text(failure: Failure, command: bytes, directory: bytes) -> str:
    """One sentence for people, in which the container's own words are escaped."""
    why = os.strerror(failure.errno)
    if failure.step is Step.DIRECTORY:
        return f"The working directory {shown(directory)} cannot be entered: {why}."
    if failure.step is not Step.EXECVE:
        return f"It was not possible to {_STEPS.get(failure.step, 'start it')} ({why})."
    return _execve_text(failure, shown(failure.path or command), why)


def _execve_text(failure: Failure, path: str, why: str) -> str:
    match failure.errno:
        case errno.ENOENT if failure.interpreter:
            return f"{path} needs the interpreter {shown(failure.interpreter)}, which is not in the container."
        case errno.ENOENT if "/" not in path:
            return f"There is no command {path} in the container's PATH."
        case errno.ENOENT:
            return f"There is no file {path} in the container."
        case errno.ENOEXEC if failure.machine is not None:
            return f"{path} is a program for {machine_name(failure.machine)}; this host is {host_machine()}."
        case errno.ENOEXEC:
            return f"{path} is neither a program nor a script that begins with #!."
        case errno.EACCES:
            return f"{path} cannot be executed: it is no file, or its mode or a directory on the way does not allow it."
        case _:
            return f"{path} cannot be executed: {why}."


def machine_name(number: int) -> str:
    """The name of a processor by its e_machine."""
    return MACHINES.get(number, f"another processor (ELF machine {number})")


def host_machine() -> str:
    """The name of this host's processor."""
    machine = os.uname().machine
    return _OURS.get(machine, machine)


def shown(text: bytes) -> str:
    """Bytes that somebody in a container has chosen: printable, on one line."""
    decoded = text.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in decoded)
