"""devices: which device nodes can be opened, whoever made them: no more than the harmless ones of /dev.

Version 1 has a list in each group, which a new group inherits and may only narrow; `deny a` fails once it has groups
below (devices.rst). Version 2 has none: a program is attached (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15), and those of
all groups above hold too. Nodes cannot be made (mknod) either way. The nodes themselves are made by
`sysproc.isolation.host_mounts`.

Block devices are given to a group by name, those of raw volumes: version 1 wants them allowed in each group above as
well, version 2's programs are replaced by others.
"""

import os
from collections.abc import Collection

from sysproc.isolation.cgroups.control_files import read, subdirectories, write
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
        found = set(read(f"{node}/devices.list").splitlines())
        if {line for line in found if not line.startswith("b ")} == wanted:
            if not subdirectories(node):  # a new one has inherited those of its parent
                self.give(node, ())
            return
        write(f"{node}/devices.deny", "a")
        for rule in sorted(wanted):
            write(f"{node}/devices.allow", rule)

    def give(self, node: str, devices: Collection[tuple[int, int]]) -> None:
        """What is denied here is denied in all groups below."""
        found = {line for line in read(f"{node}/devices.list").splitlines() if line.startswith("b ")}
        wanted = {f"b {major}:{minor} rw" for major, minor in devices}
        for rule in sorted(found - wanted):
            write(f"{node}/devices.deny", rule)
        for rule in sorted(wanted - found):
            write(f"{node}/devices.allow", rule)


class DevicesV2(Controller):
    """A program that says yes to what is allowed and no to all else. It goes with the group."""

    def open(self, node: str) -> None:
        """Nothing to do if one is attached already."""
        directory = os.open(node, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if bpf.prog_query(directory, bpf.BPF_CGROUP_DEVICE):
                return
            self._attach(directory, ())
        finally:
            os.close(directory)

    def give(self, node: str, devices: Collection[tuple[int, int]]) -> None:
        """Another program takes the place of the one that is there, at once."""
        directory = os.open(node, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._attach(directory, devices)
        finally:
            os.close(directory)

    def _attach(self, directory: int, devices: Collection[tuple[int, int]]) -> None:
        code = assemble(ALLOWED, devices)
        program = bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, code, name="sysproc_devices")
        try:
            bpf.prog_put(directory, program, bpf.BPF_CGROUP_DEVICE)
        finally:
            os.close(program)


def assemble(allowed: tuple[tuple[int, int | None], ...], blocks: Collection[tuple[int, int]] = ()) -> bytes:
    """The program: reading and writing of these character devices, and block devices, is allowed, nothing else."""
    refuse = bpf.exit_with(0)
    allow = bpf.exit_with(1)
    steps = [
        bpf.load_word(_ACCESS, 1, 0),
        bpf.load_word(_MAJOR, 1, 4),
        bpf.load_word(_MINOR, 1, 8),
        bpf.jump_if_any_bit(_ACCESS, bpf.BPF_DEVCG_ACC_MKNOD << 16, 2),
        bpf.mask(_ACCESS, 0xFFFF),
        bpf.jump_if_equal(_ACCESS, bpf.BPF_DEVCG_DEV_CHAR, 4 * len(blocks) + 2),
    ]
    for major, minor in sorted(blocks):
        # Four instructions; of the two last, that which is refused consists as well.
        steps += [bpf.jump_if_not_equal(_MAJOR, major, 3), bpf.jump_if_not_equal(_MINOR, minor, 2), allow]
    steps.append(refuse)
    for major, one in allowed:
        if one is None:
            steps += [bpf.jump_if_not_equal(_MAJOR, major, 2), allow]
        else:
            steps += [bpf.jump_if_not_equal(_MAJOR, major, 3), bpf.jump_if_not_equal(_MINOR, one, 2), allow]
    return b"".join([*steps, refuse])
