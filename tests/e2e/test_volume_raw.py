"""Volumes as raw disks of containers: used there, and by nobody else; taken away again, and gone with the container."""

import json

import pytest

from sysproc.linux.loop import loops_backed_by
from sysproc_client import (
    Client,
    Container,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    SysprocError,
)
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says, script_inside

MIB = 2**20


def devices(daemon: RunningDaemon) -> list[str]:
    """The loop devices of all volumes."""
    return [one for file in (daemon.state_dir / "volumes").iterdir() for one in loops_backed_by(file)]


@pytest.mark.vm
def test_what_is_written_to_a_raw_disk_is_in_the_volume_and_no_other_device_opens(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="32M")
    other = client.volumes.create("other", size="32M")
    assert data.attach(box) == "/dev/vsf/data"
    (attached,) = data.refresh().attached_to
    assert (attached.raw, attached.path, attached.container_id) == (True, b"/dev/vsf/data", int(box.id, 16))
    assert data.origin == "foreign"
    assert says(box, "stat -c '%F %u:%g %a' /dev/vsf/data") == b"block special file 0:0 600\n"
    says(box, "dd if=/dev/urandom of=/dev/vsf/data bs=4096 count=100 conv=fsync 2>/dev/null")
    says(box, "dd if=/dev/vsf/data of=/tmp/copy bs=4096 count=100 2>/dev/null")
    file = next(one for one in (daemon.state_dir / "volumes").iterdir() if loops_backed_by(one))
    with file.open("rb") as disk:
        disk.seek(MIB)
        content = disk.read(100 * 4096)
    assert (
        says(box, "sha256sum </tmp/copy | cut -c1-64").decode().strip()
        == __import__("hashlib").sha256(content).hexdigest()
    )
    assert int(says(box, "blockdev --getsize64 /dev/vsf/data")) == 30 * MIB
    neighbour = client.create()
    other.attach(neighbour)
    numbers = says(neighbour, "stat -c '%t %T' /dev/vsf/other").split()
    major, minor = (int(one, 16) for one in numbers)
    assert box.run(["sh", "-c", f"mknod /dev/stolen b {major} {minor}"]).exit_code != 0
    assert box.run(["sh", "-c", "mount -t ext4 /dev/vsf/data /mnt"]).exit_code != 0
    data.detach(box)
    assert says(box, "ls /dev/vsf") == b""
    assert len(devices(daemon)) == 1


def test_raw_and_mounted_exclude_each_other(client: Client, box: Container) -> None:
    other = client.create()
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    with pytest.raises(FailedPrecondition, match="in use: mounted"):
        data.attach(other)
    assert data.refresh().origin == "made"
    client.volumes.unmount(box, "/data")
    data.attach(other)
    for refused in (
        lambda: data.mount(box, "/data"),
        lambda: data.attach(box),
        lambda: data.attach(other),
        data.trust,
        lambda: data.grow("64M"),
        data.delete,
    ):
        with pytest.raises(FailedPrecondition):
            refused()
    data.detach(other)
    with pytest.raises(FailedPrecondition, match="written elsewhere"):
        data.mount(box, "/data")
    data.trust().mount(box, "/data")


def test_who_has_it_open_is_told_and_force_ends_them(client: Client, box: Container, daemon: RunningDaemon) -> None:
    data = client.volumes.create("data", size="32M")
    data.attach(box)
    with box.exec(["sh", "-c", "exec 5<>/dev/vsf/data; echo ready; exec sleep 1000"], stdin=False) as process:
        assert next(iter(process)).data == b"ready\n"
        with pytest.raises(FailedPrecondition, match=r"sleep \(\d+\): /dev/vsf/data"):
            data.detach(box)
        says(box, "dd if=/dev/vsf/data of=/dev/null bs=4096 count=1 2>/dev/null")
        data.detach(box, force=True)
        assert process.wait().signal == 9
    assert devices(daemon) == []
    with pytest.raises(NotFound, match="not attached"):
        data.detach(box)


@pytest.mark.vm
def test_once_detached_a_node_that_was_kept_opens_nothing(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.attach(box)
    says(box, "ln /dev/vsf/data /dev/kept")
    data.detach(box)
    neighbour = client.create()
    data.attach(neighbour)
    refused = box.run(["sh", "-c", "dd if=/dev/kept of=/dev/null count=1"])
    assert refused.exit_code != 0 and b"not permitted" in refused.stderr
    says(neighbour, "dd if=/dev/vsf/data of=/dev/null count=1 2>/dev/null")


@pytest.mark.parametrize("end", ["stop", "destroy"])
def test_it_goes_with_the_container(client: Client, daemon: RunningDaemon, box: Container, end: str) -> None:
    data = client.volumes.create("data", size="32M")
    data.attach(box)
    daemon.restart()
    says(box, "dd if=/dev/zero of=/dev/vsf/data bs=4096 count=1 2>/dev/null")
    box.stop(grace=0) if end == "stop" else box.destroy()
    assert devices(daemon) == []
    data.delete()


def test_a_child_gets_the_volume_of_its_parent_and_the_parent_keeps_its_own(client: Client) -> None:
    parent = client.create(name="parent")
    child = client.create(parent="parent", name="child")
    uncle = client.create(name="uncle")
    one = client.volumes.create("one", size="32M", owner="parent")
    two = client.volumes.create("two", size="32M", owner="parent")
    read = "dd if=/dev/vsf/{} of=/dev/null count=1 2>/dev/null"
    one.attach(parent)
    assert script_inside(parent, "client.volumes.get('two').attach('child', read_only=True); answer = 1") == 1
    says(parent, read.format("one"))
    says(child, read.format("two"))
    assert child.run(["sh", "-c", "echo x >/dev/vsf/two"]).exit_code != 0
    grandchild = client.create(parent=child)
    assert grandchild.run(["sh", "-c", "ls /dev/vsf"]).exit_code != 0
    with pytest.raises(PermissionDenied):
        one.attach(uncle)
    two.detach(child)
    says(parent, read.format("one"))
    one.detach(parent)


def test_one_of_several_filesystems_is_attached_by_its_label(client: Client, box: Container) -> None:
    data = client.volumes.create("data", filesystems=[("one", "ext4", "16M"), ("two", "ext4", "16M")])
    assert data.attach(box, filesystem="two") == "/dev/vsf/data.two"
    assert says(box, "blockdev --getsize64 /dev/vsf/data.two") == b"%d\n" % (16 * MIB)
    assert [(one.filesystem, one.raw) for one in data.refresh().attached_to] == [("two", True)]
    data.detach(box, filesystem="two")


def test_the_command_attaches_and_detaches(sysproc: Sysproc, box: Container) -> None:
    assert sysproc("volume", "create", "data", "--size", "32M").returncode == 0
    assert sysproc("volume", "attach", "box", "data", "--ro").stdout == b"/dev/vsf/data\n"
    (listed,) = json.loads(sysproc("volume", "list", "-o", "json").stdout)
    assert [(one["raw"], one["read_only"], one["path"]) for one in listed["attached_to"]] == [
        (True, True, "/dev/vsf/data")
    ]
    assert b"raw" in sysproc("volume", "inspect", "data").stdout
    assert sysproc("volume", "detach", "box", "data").returncode == 0


@pytest.mark.parametrize("action", ["kill", "raise"])
@pytest.mark.parametrize(
    "failpoint",
    [
        "volumes.raw.after_lock",
        "volumes.raw.after_origin",
        "volumes.raw.after_device",
        "volumes.raw.after_cgroups",
        "volumes.raw.after_closing",
        "volumes.raw.after_clear",
    ],
)
def test_what_was_cut_off_can_be_done_again_and_nothing_is_left(
    daemon: RunningDaemon, failpoint: str, action: str
) -> None:
    daemon.kill9()
    daemon.start(environment={"SYSPROC_FAILPOINTS": f"{failpoint}={action}"})
    with Client(daemon.endpoint, patience=0) as client, pytest.raises(SysprocError):
        box = client.create(name="box")
        data = client.volumes.create("data", size="32M")
        data.attach(box)
        data.detach(box)
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        box, data = client.get("box"), client.volumes.get("data")
        if data.attached_to:
            data.detach(box)
        assert devices(daemon) == []
        data.attach(box)
        says(box, "dd if=/dev/vsf/data of=/dev/null count=1 2>/dev/null")
        box.destroy()
        assert devices(daemon) == []
