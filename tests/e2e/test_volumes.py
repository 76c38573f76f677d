"""Volumes through the API: made, found, grown, deleted; whose they are, what room they take, what outlives what.

That files hold what they should is in `tests/kernel/test_volume_files.py`; crashes at every step are in `tests.crash`.
"""

import os
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc.storage.vsf.disk import read_disk
from sysproc_client import (
    AlreadyExists,
    Client,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    NotFound,
    SysprocError,
    Volume,
)
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import script_inside
from tests.waiting import wait_until

MIB = 2**20
OUT_OF_REACH = ["PermissionDenied", "OUT_OF_REACH"]


def files_of(daemon: RunningDaemon) -> list[Path]:
    return sorted((daemon.state_dir / "volumes").iterdir())


@pytest.mark.vm
def test_a_volume_is_made_found_grown_and_deleted(client: Client, daemon: RunningDaemon) -> None:
    made = client.volumes.create("data", size="64M")
    assert (made.name, made.owner_id, made.size, made.on_destroy) == ("data", "", 64 * MIB, "delete")
    (filesystem,) = made.filesystems
    assert (filesystem.label, filesystem.type, filesystem.size_bytes) == ("data", pb.FILESYSTEM_TYPE_EXT4, 62 * MIB)
    assert client.volumes.get("data").message == made.message
    assert [one.message for one in client.volumes.list()] == [made.message]
    (file,) = files_of(daemon)
    with file.open("rb") as disk:
        (part,) = read_disk(disk.fileno())
    assert part.contents is not None
    assert (part.contents.label, part.contents.uuid) == ("data", filesystem.uuid)
    grown = made.grow("100M")
    assert (grown.size, grown.filesystems[0].size_bytes) == (100 * MIB, 98 * MIB)
    assert files_of(daemon)[0].stat().st_size == 100 * MIB
    assert grown.grow("100M").size == 100 * MIB
    with pytest.raises(InvalidArgument, match="cannot become"):
        grown.grow("64M")
    made.delete()
    assert files_of(daemon) == [] and client.volumes.list() == []
    with pytest.raises(NotFound):
        client.volumes.get("data")


def test_a_volume_holds_several_filesystems_and_other_tools_see_them(client: Client, daemon: RunningDaemon) -> None:
    kinds = [kind for kind in ("btrfs", "xfs") if shutil.which(f"mkfs.{kind}")]
    wanted = [("home", "ext4", "64M"), *((kind, kind, "400M") for kind in kinds), ("rest", "ext4", None)]
    made = client.volumes.create("mixed", size="1100M", filesystems=wanted)
    assert [one.label for one in made.filesystems] == ["home", *kinds, "rest"]
    assert sum(one.size_bytes for one in made.filesystems) == (1100 - 2) * MIB
    listed = subprocess.run(["sfdisk", "-l", files_of(daemon)[0]], capture_output=True, text=True, check=True).stdout
    assert "Linux home" in listed


def test_what_cannot_be_is_refused_and_leaves_nothing(client: Client, daemon: RunningDaemon) -> None:
    for wrong in (
        {"size": "1M"},
        {"size": "16M", "fs": "xfs"},
        {"size": "16M", "filesystems": [("a b", "ext4", None)]},
    ):
        with pytest.raises(InvalidArgument, match="volume"):
            client.volumes.create("data", **wrong)
    assert client.volumes.list() == [] and files_of(daemon) == []


def test_names_are_an_owners_to_give_once(client: Client) -> None:
    box = client.create(name="box")
    client.volumes.create("data", size="16M")
    client.volumes.create("data", size="16M", owner="box")
    with pytest.raises(AlreadyExists):
        client.volumes.create("data", size="16M", owner=box)
    assert client.volumes.get("box/data").owner_id == box.id == client.volumes.get("data", owner="box").owner_id
    assert [one.owner_id for one in client.volumes.list(below=box)] == [box.id]
    with pytest.raises(NotFound):
        client.volumes.get("nobody/data")


def test_a_repeated_request_is_carried_out_once(client: Client) -> None:
    request_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    first = client.volumes.create("data", size="16M", request_id=request_id)
    assert client.volumes.create("data", size="16M", request_id=request_id).message == first.message
    with pytest.raises(InvalidArgument, match="another request"):
        client.volumes.create("other", size="16M", request_id=request_id)
    deletion = service.DeleteVolumeRequest(volume=first.ref, request_id=request_id)
    for _ in range(2):
        client._call(client.volumes._stub.DeleteVolume, deletion)
    with pytest.raises(NotFound):
        first.delete()


def test_validate_only_makes_nothing(client: Client, daemon: RunningDaemon) -> None:
    would = client.volumes.create("data", size="1G", validate_only=True)
    assert (would.size, would.filesystems[0].uuid) == (1 << 30, "")
    assert client.volumes.list() == [] and files_of(daemon) == []


# -- whose they are


def test_a_container_has_volumes_of_its_own_and_those_below_in_reach(client: Client) -> None:
    box, sibling = client.create(name="box"), client.create(name="sibling")
    client.volumes.create("hosts", size="16M")
    client.volumes.create("siblings", size="16M", owner=sibling)
    script = """
child = client.create(name="child")
own, other = client.volumes.create("own", size="16M"), client.volumes.create("its", size="16M", owner=child)
answer = [own.owner_id, other.owner_id, child.id, [one.name for one in client.volumes.list()],
          client.volumes.get("child/its").grow("32M").size]
"""
    own, its, child, names, size = script_inside(box, script)
    assert (own, its, names, size) == (box.id, child, ["own", "its"], 32 * MIB)
    assert len(client.volumes.list()) == 4
    assert script_inside(box, 'client.volumes.get("child/its").delete(); client.volumes.get("own").delete()') is None


@pytest.mark.parametrize(
    "attempt",
    [
        'client.volumes.create("x", size="16M", owner="{0}")',
        'client.volumes.get("data", owner="{0}")',
        'client.volumes.list(below="{0}")',
        'client.volumes._grow(volume_ref("{0}/data"), "1G", None)',
        'client.volumes._delete(volume_ref("{0}/data"))',
    ],
)
def test_nobody_elses_volumes_are_reached(client: Client, attempt: str) -> None:
    above = client.create()
    box, sibling = client.create(parent=above), client.create(parent=above)
    for owner in (None, above, sibling):
        client.volumes.create("data", size="16M", owner=owner)
    for other in (above.id, sibling.id, "00000000deadbeef", "0000000000000000"):
        script = f"from sysproc_client.volumes import volume_ref\n{attempt.format(other)}"
        assert script_inside(box, script) == OUT_OF_REACH
    assert len(client.volumes.list()) == 3
    assert script_inside(box, "answer = client.volumes.list()") == []
    assert script_inside(box, "client.volumes.list()", uid=33) == ["PermissionDenied", "PERMISSION_DENIED"]


def test_an_owner_takes_its_volumes_along_or_leaves_them_to_its_parent(client: Client, daemon: RunningDaemon) -> None:
    top = client.create(name="top")
    box = client.create(parent=top, name="box")
    for name, policy in (("gone", "delete"), ("kept", "reparent"), ("data", "reparent")):
        client.volumes.create(name, size="16M", owner=box, on_destroy=policy)
    client.volumes.create("data", size="16M", owner=top)
    box.destroy()
    left = {one.name: one.owner_id for one in client.volumes.list()}
    (inherited,) = left.keys() - {"kept", "data"}
    assert left.keys() >= {"kept", "data"} and inherited.startswith("data-") and set(left.values()) == {top.id}
    assert len(files_of(daemon)) == 3
    top.destroy()
    assert {one.name: one.owner_id for one in client.volumes.list()} == {"kept": "", inherited: ""}
    assert len(files_of(daemon)) == 2


# -- room


def test_volumes_count_against_the_storage_of_all_above(client: Client) -> None:
    box = client.create(name="box", size="32M", storage="100M")
    child = client.create(parent=box, size="32M")
    volume = client.volumes.create("data", size="32M", owner=child)
    with pytest.raises(LimitExceeded, match=f"of which {96 * MIB} are used"):
        client.volumes.create("more", size="16M", owner=box)
    with pytest.raises(LimitExceeded):
        volume.grow("64M")
    assert volume.refresh().size == 32 * MIB
    assert script_inside(box, 'client.volumes.create("x", size="16M")') == ["LimitExceeded", "LIMIT_EXCEEDED"]
    assert script_inside(box, 'client.volumes.create("x", size="16M", overcommit=True)')[1] == "OVERCOMMIT"
    client.volumes.create("promised", size="16M", owner=box, overcommit=True)
    volume.delete()
    client.volumes.create("data", size="36M", owner=child)


def test_what_does_not_fit_on_the_hosts_disk_is_promised_by_the_host_only(
    client: Client, daemon: RunningDaemon
) -> None:
    disk = os.statvfs(daemon.state_dir)
    size = min(disk.f_blocks * disk.f_frsize + MIB, 2**43)
    with pytest.raises(LimitExceeded, match="host's disk"):
        client.volumes.create("large", size=size)
    assert client.volumes.create("large", size=size, overcommit=True).size >= size


def test_a_disk_of_the_kernel_is_in_use(client: Client, daemon: RunningDaemon) -> None:
    volume = client.volumes.create("data", size="16M")
    with files_of(daemon)[0].open("rb+") as file:
        device, _ = loop_configure(file.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR)
    for act in (volume.delete, lambda: volume.grow("32M")):
        with pytest.raises(FailedPrecondition, match="has its file open"):
            act()
    assert volume.refresh().attached_to == []
    os.close(device)
    volume.delete()


# -- crashes


def test_volumes_outlive_the_daemon(client: Client, daemon: RunningDaemon) -> None:
    box = client.create()
    made = client.volumes.create("data", size="16M", owner=box)
    daemon.restart()
    assert client.volumes.get("data", owner=box.id).message == made.message


def armed(daemon: RunningDaemon, terms: str) -> None:
    if daemon.alive():
        daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": terms})


def destroyed_while_it_is_made(daemon: RunningDaemon, policy: str, size: str) -> "Future[Volume]":
    """What is told to who creates a volume, of a size that there was none of, whose owner is destroyed meanwhile."""
    marker = daemon.directory / "here"
    armed(daemon, f"volumes.make.after_copy=1*block({marker})")
    with Client(daemon.endpoint) as client, ThreadPoolExecutor() as threads:
        box = client.create()
        creating = threads.submit(client.volumes.create, "data", size=size, owner=box, on_destroy=policy)
        wait_until(marker.exists, "the file is being made")
        destroying = threads.submit(box.destroy)
        wait_until(lambda: not client.list(), "the owner is gone")
        marker.unlink()
        assert destroying.result() == [box.id]
        wait_until(creating.done, "the create has been answered")
    return creating


def test_a_volume_that_is_made_while_its_owner_goes_goes_with_it(daemon: RunningDaemon, client: Client) -> None:
    told = destroyed_while_it_is_made(daemon, "delete", "201M")
    with pytest.raises(FailedPrecondition, match="its owner is destroyed"):
        told.result()
    assert client.volumes.list() == [] and files_of(daemon) == []


def test_a_volume_that_is_made_while_its_owner_goes_is_inherited(daemon: RunningDaemon, client: Client) -> None:
    assert destroyed_while_it_is_made(daemon, "reparent", "202M").result().owner_id == ""
    assert [one.name for one in client.volumes.list()] == ["data"]


def test_one_that_is_made_quickly_while_its_owner_goes_is_not_made(daemon: RunningDaemon, client: Client) -> None:
    client.volumes.create("first", size="203M").delete()
    told = destroyed_while_it_is_made(daemon, "reparent", "203M")
    with pytest.raises(NotFound, match="There is no container"):
        told.result()
    assert client.volumes.list() == [] and files_of(daemon) == []


def test_what_is_refused_leaves_no_file_whenever_it_is_refused(client: Client, daemon: RunningDaemon) -> None:
    client.volumes.create("data", size="16M")
    with pytest.raises(AlreadyExists):
        client.volumes.create("data", size="16M")
    with ThreadPoolExecutor(8) as threads:
        told = [threads.submit(client.volumes.create, "same", size="16M") for _ in range(8)]
    assert sum(one.exception() is None for one in told) == 1
    assert {type(error) for one in told if (error := one.exception()) is not None} <= {AlreadyExists}
    assert len(files_of(daemon)) == 2


def test_of_many_at_once_no_more_are_made_than_there_is_room_for(client: Client) -> None:
    box = client.create(size="32M", storage="100M")

    def create(number: int) -> bool:
        try:
            client.volumes.create(f"v{number}", size="16M", owner=box)
        except LimitExceeded:
            return False
        return True

    with ThreadPoolExecutor(10) as threads:
        assert sum(threads.map(create, range(10))) == 4


def cut_off(daemon: RunningDaemon, failpoint: str, size: str) -> None:
    """The daemon dies there while it creates a volume of this size; the next one knows nothing of it."""
    armed(daemon, f"{failpoint}=kill")
    with Client(daemon.endpoint, patience=0) as client, pytest.raises(SysprocError):
        client.volumes.create("data", size=size)
    wait_until(lambda: not daemon.alive(), "the daemon is dead")
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        assert client.volumes.list() == [] and files_of(daemon) == []
        assert client.volumes.create("data", size=size).size == int(size[:-1]) * MIB


@pytest.mark.parametrize(
    ("failpoint", "size"),
    [
        ("volumes.create.after_intention", "211M"),
        ("volumes.make.after_format", "212M"),
        ("volumes.make.after_copy", "213M"),
        ("volumes.create.after_file", "214M"),
    ],
)
def test_a_create_that_was_cut_off_leaves_nothing_and_can_be_asked_for_again(
    daemon: RunningDaemon, failpoint: str, size: str
) -> None:
    cut_off(daemon, failpoint, size)


@pytest.mark.parametrize(
    "failpoint", ["volumes.make.after_copy", "volumes.make.after_name", "volumes.create.before_record"]
)
def test_a_create_from_a_template_that_was_cut_off_leaves_nothing_either(daemon: RunningDaemon, failpoint: str) -> None:
    with Client(daemon.endpoint) as client:
        client.volumes.create("first", size="16M").delete()
    cut_off(daemon, failpoint, "16M")


@pytest.mark.parametrize(
    ("failpoint", "size"),
    [
        ("volumes.grow.after_intention", 16 * MIB),
        ("volumes.grow.after_copy", 16 * MIB),
        ("volumes.grow.before_rename", 16 * MIB),
        ("volumes.grow.after_file", 64 * MIB),
    ],
)
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_growth_that_was_cut_off_has_happened_or_has_not(
    daemon: RunningDaemon, failpoint: str, size: int, action: str
) -> None:
    armed(daemon, f"{failpoint}={action}")
    with Client(daemon.endpoint, patience=0) as client:
        volume = client.volumes.create("data", size="16M")
        with pytest.raises(SysprocError):
            volume.grow("64M")
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        (file,), volume = files_of(daemon), client.volumes.get("data")
        assert (volume.size, volume.filesystems[0].size_bytes, file.stat().st_size) == (size, size - 2 * MIB, size)
        assert volume.grow("128M").size == 128 * MIB


@pytest.mark.parametrize("failpoint", ["volumes.delete.after_mark", "volumes.forget.after_file"])
def test_a_delete_that_was_cut_off_is_finished(daemon: RunningDaemon, failpoint: str) -> None:
    armed(daemon, f"{failpoint}=kill")
    with Client(daemon.endpoint, patience=0) as client, pytest.raises(SysprocError):
        client.volumes.create("data", size="16M").delete()
    wait_until(lambda: not daemon.alive(), "the daemon is dead")
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        assert client.volumes.list() == [] and files_of(daemon) == []


@pytest.mark.parametrize("failpoint", ["containers.destroy.after_mark", "containers.destroy.after_volume"])
def test_a_destroy_that_was_cut_off_takes_volumes_along_when_it_is_finished(
    daemon: RunningDaemon, failpoint: str
) -> None:
    armed(daemon, f"{failpoint}=kill")
    with Client(daemon.endpoint, patience=0) as client, pytest.raises(SysprocError):
        box = client.create()
        client.volumes.create("gone", size="16M", owner=box)
        client.volumes.create("kept", size="16M", owner=box, on_destroy="reparent")
        box.destroy()
    wait_until(lambda: not daemon.alive(), "the daemon is dead")
    daemon.restart(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as client:
        assert [(one.name, one.owner_id) for one in client.volumes.list()] == [("kept", "")]
        assert len(files_of(daemon)) == 1
