"""devices: which device nodes can be opened, whoever made them: no more than the harmless ones of /dev.

Version 1 has a list in each group, which a new group inherits and may only narrow; `deny a` fails once it has groups
below (devices.rst). Version 2 has none: a program is attached (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15), and those of
all groups above hold too. Nodes cannot be made (mknod) either way. The nodes themselves are made by
`sysproc.isolation.host_mounts`.
"""

import os

from sysproc.isolation.cgroups.control_files import read, write
from sysproc.isolation.cgroups.controllers.base import Controller
from sysproc.linux import bpf

# Character devices by major and minor, None: any (devices.txt of the kernel).
ALLOWED: tuple[tuple[int, int | None], ...] = (
    (1, 3),  # null
    (1, 5),  # zero
    (1, 7),  # full
    (1, 8),  # random
    (1, 9),  # urandom
    (5, 0),  # tty
    (5, 2),  # ptmx
    (136, None),  # pts/*
)
_ACCESS, _MAJOR, _MINOR = 2, 3, 4  # registers


class DevicesV1(Controller):
    """devices.allow and devices.deny."""

    def open(self, node: str) -> None:
        """Linux 2.6.26."""
        wanted = {f"c {major}:{'*' if minor is None else minor} rw" for major, minor in ALLOWED}
        if set(read(f"{node}/devices.list").splitlines()) == wanted:
            return
        write(f"{node}/devices.deny", "a")
        for rule in sorted(wanted):
            write(f"{node}/devices.allow", rule)


class DevicesV2(Controller):
    """A program that says yes to what is allowed and no to all else. It goes with the group."""

    def open(self, node: str) -> None:
        """Nothing to do if one is attached already."""
        directory = os.open(node, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if bpf.prog_query(directory, bpf.BPF_CGROUP_DEVICE):
                return
            program = bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, assemble(ALLOWED), name="sysproc_devices")
            try:
                bpf.prog_attach(directory, program, bpf.BPF_CGROUP_DEVICE)
            finally:
                os.close(program)
        finally:
            os.close(directory)


def assemble(allowed: tuple[tuple[int, int | None], ...]) -> bytes:
    """The program: reading and writing of these character devices is allowed, nothing else."""
    refuse = bpf.exit_with(0)
    allow = bpf.exit_with(1)
    steps = [
        bpf.load_word(_ACCESS, 1, 0),
        bpf.load_word(_MAJOR, 1, 4),
        bpf.load_word(_MINOR, 1, 8),
        bpf.jump_if_any_bit(_ACCESS, bpf.BPF_DEVCG_ACC_MKNOD << 16, 2),
        bpf.mask(_ACCESS, 0xFFFF),
        bpf.jump_if_equal(_ACCESS, bpf.BPF_DEVCG_DEV_CHAR, 2),
        refuse,  # two instructions
    ]
    for major, minor in allowed:
        if minor is None:
            steps += [bpf.jump_if_not_equal(_MAJOR, major, 2), allow]
        else:
            steps += [bpf.jump_if_not_equal(_MAJOR, major, 3), bpf.jump_if_not_equal(_MINOR, minor, 2), allow]
    return b"".join([*steps, refuse])
