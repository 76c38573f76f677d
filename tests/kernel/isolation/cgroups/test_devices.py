"""What a process in a container can open, whatever nodes it has: as root of the host, which it never is elsewhere."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sysproc.isolation.cgroups import CgroupTree, Limits
from sysproc.isolation.cgroups.controllers.devices import ALLOWED, DevicesV2, assemble
from sysproc.linux import bpf
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from tests.kernel.isolation.cgroups.conftest import A, B, Processes

pytestmark = pytest.mark.vm

KMSG, LOOP_CONTROL, LOOP_0, PORT = (1, 11), (10, 237), (7, 0), (1, 4)


@pytest.fixture
def node(tmp_path: Path) -> Callable[[int, tuple[int, int]], str]:
    """Makes a device node outside, by the host."""

    def make(kind: int, numbers: tuple[int, int]) -> str:
        path = str(tmp_path / f"{kind}-{numbers[0]}-{numbers[1]}")
        os.mknod(path, kind | 0o666, os.makedev(*numbers))
        return path

    return make


Node = Callable[[int, tuple[int, int]], str]


@pytest.mark.parametrize("numbers", [(major, minor) for major, minor in ALLOWED if minor not in (None, 0, 2)])
def test_the_harmless_ones_can_be_opened(
    tree: CgroupTree, processes: Processes, node: Node, numbers: tuple[int, int]
) -> None:
    path = node(stat.S_IFCHR, numbers)
    assert processes.run(tree.create([A], Limits()), lambda: os.close(os.open(path, os.O_RDWR))) == 0


def test_a_terminal_can_be_opened(tree: CgroupTree, processes: Processes) -> None:
    assert processes.run(tree.create([A], Limits()), os.openpty) == 0


@pytest.mark.parametrize("numbers", [KMSG, LOOP_CONTROL, PORT, (5, 1), (4, 0)])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_no_other_character_device_can(
    tree: CgroupTree, processes: Processes, node: Node, numbers: tuple[int, int], flags: int
) -> None:
    path = node(stat.S_IFCHR, numbers)
    assert processes.run(tree.create([A], Limits()), lambda: os.open(path, flags)) == errno.EPERM


def test_no_block_device_can(tree: CgroupTree, processes: Processes, node: Node) -> None:
    """Not even one with the numbers of a harmless character device."""
    group = tree.create([A], Limits())
    for numbers in (LOOP_0, (1, 3)):
        open_it = partial(os.open, node(stat.S_IFBLK, numbers), os.O_RDONLY)
        assert processes.run(group, open_it) == errno.EPERM


@pytest.mark.parametrize(("kind", "numbers"), [(stat.S_IFCHR, (1, 3)), (stat.S_IFCHR, KMSG), (stat.S_IFBLK, LOOP_0)])
def test_no_node_can_be_made(
    tree: CgroupTree, processes: Processes, tmp_path: Path, kind: int, numbers: tuple[int, int]
) -> None:
    group = tree.create([A], Limits())
    path = str(tmp_path / "made")
    assert processes.run(group, lambda: os.mknod(path, kind | 0o600, os.makedev(*numbers))) == errno.EPERM


def test_it_holds_for_a_child_and_after_a_restart(tree: CgroupTree, processes: Processes, node: Node) -> None:
    path = node(stat.S_IFCHR, KMSG)
    tree.create([A], Limits())
    child = tree.create([A, B], Limits())
    assert processes.run(child, lambda: os.open(path, os.O_RDONLY)) == errno.EPERM
    tree.open([A]).remove()
    again = tree.create([A], Limits())
    assert processes.run(again, lambda: os.open(path, os.O_RDONLY)) == errno.EPERM
    assert processes.run(again, lambda: os.open("/dev/null", os.O_RDWR)) == 0


def test_one_program_a_group_is_attached(tree: CgroupTree) -> None:
    group = tree.create([A], Limits())
    group.remove()
    group = tree.create([A], Limits())
    tree.create([A], Limits())
    if tree.hierarchies.v1_with("devices") is not None:
        pytest.skip("version 1 has lists")
    assert group.procs_dirs.v2 is not None
    directory = os.open(os.path.dirname(group.procs_dirs.v2), os.O_RDONLY)
    try:
        assert bpf.prog_query(directory, bpf.BPF_CGROUP_DEVICE) == 1
    finally:
        os.close(directory)


def test_the_verifier_says_why_it_refuses() -> None:
    jump_out_of_the_program = bpf.jump_if_equal(2, 0, 100) + bpf.exit_with(0)
    with pytest.raises(OSError) as refused:
        bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, jump_out_of_the_program, name="bad")
    assert "jump out of range" in refused.value.__notes__[0]


def test_a_program_of_many_devices_is_accepted() -> None:
    many = tuple((major, minor) for major in range(1, 9) for minor in (*range(20), None))
    os.close(bpf.prog_load(bpf.BPF_PROG_TYPE_CGROUP_DEVICE, assemble(many), name="many_devices_long_name"))


# -- block devices that are given


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The numbers of a loop device that is there as long as the test."""
    with (tmp_path / "disk").open("w+b") as file:
        file.truncate(1 << 20)
        device, _ = loop_configure(file.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR)
    try:
        found = os.fstat(device).st_rdev
        yield os.major(found), os.minor(found)
    finally:
        os.close(device)


def opened(path: str) -> None:
    os.close(os.open(path, os.O_RDWR))


def test_a_block_device_that_was_given_can_be_opened_until_it_is_taken(
    tree: CgroupTree, processes: Processes, node: Node, disk: tuple[int, int]
) -> None:
    group, path = tree.create([A], Limits()), node(stat.S_IFBLK, disk)
    open_it, other = partial(opened, path), node(stat.S_IFBLK, (disk[0], disk[1] + 1))
    assert processes.run(group, open_it) == errno.EPERM
    group.give_block_devices([disk], [])
    assert processes.run(group, open_it) == 0
    assert processes.run(group, partial(opened, other)) == errno.EPERM
    assert processes.run(group, partial(opened, node(stat.S_IFCHR, disk))) == errno.EPERM
    assert processes.run(group, partial(opened, "/dev/null")) == 0
    group.give_block_devices([], [])
    assert processes.run(group, open_it) == errno.EPERM


def test_what_a_child_is_given_its_parent_does_not_open_and_a_new_child_does_not_inherit(
    tree: CgroupTree, processes: Processes, node: Node, disk: tuple[int, int]
) -> None:
    parent, child = tree.create([A], Limits()), tree.create([A, B], Limits())
    open_it = partial(opened, node(stat.S_IFBLK, disk))
    parent.give_block_devices([], [disk])
    child.give_block_devices([disk], [])
    assert processes.run(child, open_it) == 0
    assert processes.run(parent, open_it) == errno.EPERM
    new = tree.create([A, "c" * 16], Limits())
    assert processes.run(new, open_it) == errno.EPERM
    assert processes.run(tree.create([A], Limits()), open_it) == errno.EPERM
    assert processes.run(child, open_it) == 0, "that the parent is opened again takes nothing away"
    parent.give_block_devices([], [])
    assert processes.run(child, open_it) == errno.EPERM


def test_a_program_takes_the_place_of_another(
    tree: CgroupTree, processes: Processes, node: Node, disk: tuple[int, int]
) -> None:
    """Version 2, also where version 1 has the controller: then both have to allow it."""
    group, open_it = tree.create([A], Limits()), partial(opened, node(stat.S_IFBLK, disk))
    if group.procs_dirs.v2 is None:
        pytest.skip("no version 2 here")
    group.give_block_devices([disk], [])
    directory = os.path.dirname(group.procs_dirs.v2)
    for devices, answer in (((), errno.EPERM), ([disk, (8, 1)], 0), ([(8, 1)], errno.EPERM), ([disk], 0)):
        DevicesV2().give(directory, devices)
        assert processes.run(group, open_it) == answer
        assert processes.run(group, partial(opened, "/dev/null")) == 0
    fd = os.open(directory, os.O_RDONLY)
    try:
        assert bpf.prog_query(fd, bpf.BPF_CGROUP_DEVICE) == 1
    finally:
        os.close(fd)
