"""Volumes in containers, through the API and the command: where they go, who may, what outlives what, what goes.

What one may do with a mount inside, and what a path may be, is in tests/kernel/isolation/volumes.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from sysproc.volume_mounts import MOST_MOUNTS
from sysproc_client import (
    Client,
    Container,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SysprocError,
)
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until


@pytest.mark.vm
def test_what_is_written_is_there_for_the_next_container(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount("box", "/srv/data")
    says(box, "echo kept >/srv/data/file")
    (attached,) = data.refresh().attached_to
    assert (attached.container_id, attached.path, attached.filesystem) == (int(box.id, 16), b"/srv/data", "data")
    client.volumes.unmount(box, "/srv/data")
    assert list(data.refresh().attached_to) == []
    assert says(box, "ls /srv/data") == b""
    other = client.create()
    data.mount(other, "/other", read_only=True)
    assert says(other, "cat /other/file") == b"kept\n"
    assert other.run(["touch", "/other/new"]).exit_code != 0


def test_an_application_that_is_shared_is_upgraded_in_the_parent_and_seen_in_the_child(client: Client) -> None:
    parent = client.create(name="parent")
    child = client.create(parent="parent")
    app = client.volumes.create("app", size="32M", owner="parent")
    app.mount(parent, "/opt/app")
    app.mount(child, "/opt/app", read_only=True)
    says(parent, "printf '#!/bin/sh\\necho v1\\n' >/opt/app/run; chmod 755 /opt/app/run")
    assert says(child, "/opt/app/run") == b"v1\n"
    says(
        parent, "printf '#!/bin/sh\\necho v2\\n' >/opt/app/next; chmod 755 /opt/app/next; mv /opt/app/next /opt/app/run"
    )
    assert says(child, "/opt/app/run") == b"v2\n"
    assert child.run(["sh", "-c", "echo x >/opt/app/run"]).exit_code != 0
    assert sorted(one.read_only for one in app.refresh().attached_to) == [False, True]


def test_a_volume_goes_to_its_owner_and_below_only(client: Client) -> None:
    owner, uncle = client.create(name="owner"), client.create(name="uncle")
    child = client.create(parent="owner", name="child")
    data = client.volumes.create("data", size="32M", owner="owner")
    for box in (owner, child):
        data.mount(box, "/data")
    with pytest.raises(PermissionDenied, match="not of this container"):
        data.mount(uncle, "/data")
    ours = "client.volumes.get('data').mount('.', '/again'); client.volumes.get('data').mount('child', '/again')"
    assert script_inside(owner, f"{ours}; answer = len(client.volumes.get('data').attached_to)") == 4
    for attempt in ("client.volumes.get('data')", "client.volumes.get('data', owner='owner')"):
        refused = f"""
try:
    {attempt}.mount('.', '/stolen')
    answer = "mounted"
except Exception as error:
    answer = type(error).__name__
"""
        assert script_inside(child, refused) == "NotFound"


def test_in_use_it_is_not_deleted_and_afterwards_it_is_grown_as_well(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    with pytest.raises(FailedPrecondition, match="in use"):
        data.delete()
    box.destroy()
    wait_until(lambda: not data.refresh().attached_to, "it went with the container")
    assert data.grow("64M").size == 64 << 20


def test_who_uses_it_is_told_and_force_ends_them(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    with box.exec(["sh", "-c", "exec 5>/data/open; echo ready; exec sleep 1000"], stdin=False) as process:
        assert next(iter(process)).data == b"ready\n"
        with pytest.raises(FailedPrecondition, match=r"sleep \(\d+\): file /data/open"):
            client.volumes.unmount(box, "/data")
        client.volumes.unmount(box, "/data", force=True)
        assert process.wait().signal == 9
    data.delete()


def test_it_stays_while_the_daemon_dies_and_is_found_again(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    says(box, "echo kept >/data/file")
    daemon.restart()
    assert says(box, "cat /data/file") == b"kept\n"
    assert [one.path for one in data.refresh().attached_to] == [b"/data"]
    client.volumes.unmount(box, "/data")
    data.delete()


def test_a_container_that_is_stopped_lets_go_of_it(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    box.stop(grace=0)
    wait_until(lambda: not data.refresh().attached_to, "it is mounted nowhere")
    with pytest.raises(FailedPrecondition):
        data.mount(box, "/data")
    assert says(box.start(), "ls /data") == b""


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_other_types_are_mounted_as_well(client: Client, box: Container, kind: str) -> None:
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"not installed: mkfs.{kind}")
    data = client.volumes.create("data", size="320M", fs=kind)
    try:
        data.mount(box, "/data")
    except FailedPrecondition as refused:
        if "No such device" in str(refused):
            pytest.skip(f"this kernel has no {kind}")
        raise
    assert says(box, "stat -c %u:%g /data; echo x >/data/x; cat /data/x") == b"0:0\nx\n"
    with box.exec(["sh", "-c", "exec 5>/data/open; echo ready; exec sleep 1000"], stdin=False) as process:
        next(iter(process))
        with pytest.raises(FailedPrecondition, match="file /data/open"):
            client.volumes.unmount(box, "/data")
        client.volumes.unmount(box, "/data", force=True)
    data.delete()


def test_one_of_several_filesystems_is_named_by_its_label(client: Client, box: Container) -> None:
    parts = [("one", "ext4", "16M"), ("two", "ext4", "16M")]
    data = client.volumes.create("data", filesystems=parts)
    with pytest.raises(NotFound, match="several filesystems: one, two"):
        data.mount(box, "/data")
    data.mount(box, "/one", filesystem="one")
    data.mount(box, "/two", filesystem="two")
    says(box, "touch /one/x; test ! -e /two/x")
    assert {(one.path, one.filesystem) for one in data.refresh().attached_to} == {(b"/one", "one"), (b"/two", "two")}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("relative", InvalidArgument),
        ("/a/../b", InvalidArgument),
        ("/", InvalidArgument),
        ("/etc/hosts", InvalidArgument),
        ("/" + "x" * 300, InvalidArgument),
        ("/proc/1/root/x", InvalidArgument),
    ],
)
def test_bad_paths_are_refused_and_nothing_is_left(
    client: Client, box: Container, path: str, error: type[SysprocError]
) -> None:
    data = client.volumes.create("data", size="32M")
    with pytest.raises(error):
        data.mount(box, path)
    with pytest.raises(NotFound, match="No volume is mounted"):
        client.volumes.unmount(box, "/tmp")
    with pytest.raises(NotFound, match="No volume is mounted"):
        client.volumes.unmount(box, "/proc")
    data.delete()


def test_the_command_mounts_shows_and_unmounts(sysproc: Sysproc, box: Container) -> None:
    assert sysproc("volume", "create", "data", "--size", "32M").returncode == 0
    assert sysproc("mount", "box", "data:data", "/data", "-o", "noexec").returncode == 0
    (listed,) = json.loads(sysproc("volume", "list", "-o", "json").stdout)
    where = {"container": box.id, "path": "/data", "filesystem": "data"}
    assert listed["attached_to"] == [
        {**where, "read_only": False, "exclusive": False, "direct_io": False, "raw": False}
    ]
    assert b"/data" in sysproc("volume", "inspect", "data").stdout
    refused = sysproc("volume", "delete", "data")
    assert (refused.returncode, b"in use" in refused.stderr) == (1, True)
    assert sysproc("umount", "box", "/data").returncode == 0
    assert sysproc("mount", "box", "data", "/data", "-o", "dev").returncode == 2
    assert sysproc("volume", "delete", "data").returncode == 0


def test_a_name_alone_is_the_containers_own_volume_before_the_callers(sysproc: Sysproc, box: Container) -> None:
    for owner in ((), ("--owner", "box")):
        assert sysproc("volume", "create", "data", "--size", "32M", *owner).returncode == 0
    assert sysproc("mount", "box", "data", "/data").returncode == 0
    listed = json.loads(sysproc("volume", "list", "-o", "json").stdout)
    assert {one["owner"]: len(one["attached_to"]) for one in listed} == {"": 0, box.id: 1}
    assert sysproc("umount", "box", "/data").returncode == 0
    assert sysproc("volume", "delete", "box/data").returncode == 0
    assert sysproc("mount", "box", "data", "/data").returncode == 0
    assert b"no volume named other" in sysproc("mount", "box", "other", "/data").stderr
    assert b"no container nobody" in sysproc("mount", "nobody", "data", "/data").stderr


def test_what_is_mounted_exclusively_is_mounted_once(client: Client, daemon: RunningDaemon, box: Container) -> None:
    other, data = client.create(), client.volumes.create("data", size="32M")
    data.mount(other, "/data")
    with pytest.raises(FailedPrecondition, match="in use elsewhere"):
        data.mount(box, "/data", exclusive=True)
    client.volumes.unmount(other, "/data")
    data.mount(box, "/data", exclusive=True)
    assert [one.exclusive for one in data.refresh().attached_to] == [True]
    daemon.restart()
    for exclusive in (False, True):
        with pytest.raises(FailedPrecondition, match="in use elsewhere"):
            data.mount(other, "/data", exclusive=exclusive, read_only=True)
    says(box, "echo kept >/data/file")
    box.destroy()
    wait_until(lambda: not data.refresh().attached_to, "it is mounted nowhere")
    data.mount(other, "/data", exclusive=True)
    assert says(other, "cat /data/file") == b"kept\n"


def test_of_two_that_want_it_exclusively_at_once_one_gets_it(client: Client, box: Container) -> None:
    other, data = client.create(), client.volumes.create("data", size="32M")
    with ThreadPoolExecutor(4) as threads:
        told = [threads.submit(data.mount, one, "/data", exclusive=True) for one in (box, other, box, other)]
    assert sum(one.exception() is None for one in told) == 1
    assert {type(error) for one in told if (error := one.exception()) is not None} == {FailedPrecondition}
    assert len(data.refresh().attached_to) == 1


def test_direct_io_is_the_devices_and_so_of_all_its_mounts(
    client: Client, daemon: RunningDaemon, box: Container
) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/with", direct_io=True)
    data.mount(box, "/same")
    assert [one.direct_io for one in data.refresh().attached_to] == [True, True]
    says(box, "head -c 3000000 /dev/urandom >/with/file; sha256sum </with/file >/with/sum")
    says(box, "sha256sum </same/file | cmp - /same/sum")
    for path in ("/with", "/same"):
        client.volumes.unmount(box, path)
    data.mount(box, "/without")
    with pytest.raises(FailedPrecondition, match="cannot be mounted with direct I/O"):
        data.mount(box, "/with", direct_io=True)
    assert [(one.path, one.direct_io) for one in data.refresh().attached_to] == [(b"/without", False)]
    says(box, "sha256sum </without/file | cmp - /without/sum")


def test_the_command_says_how_it_is_mounted(sysproc: Sysproc, box: Container) -> None:
    assert sysproc("volume", "create", "data", "--size", "32M").returncode == 0
    assert sysproc("mount", "box", "data", "/data", "--exclusive", "--direct-io").returncode == 0
    assert b"rw,exclusive,direct_io" in sysproc("volume", "inspect", "data").stdout
    refused = sysproc("mount", "box", "data", "/again")
    assert (refused.returncode, b"in use elsewhere" in refused.stderr) == (1, True)


def test_a_container_has_no_more_mounts_than_it_may(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="32M")
    data.mount(box, "/data")
    bind = "mkdir /tmp/$i && mount -o bind /data /tmp/$i || exit 1"
    says(box, f"i=1; while [ $i -lt {MOST_MOUNTS} ]; do {bind}; i=$((i+1)); done")
    with pytest.raises(LimitExceeded, match="volumes mounted"):
        data.mount(box, "/more")
