"""What a process in a container can open, whatever nodes it has: as root of the host, which it never is elsewhere."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from sysproc.isolation.cgroups import CgroupTree, Limits
from sysproc.isolation.cgroups.controllers.devices import ALLOWED, assemble
from sysproc.linux import bpf
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
