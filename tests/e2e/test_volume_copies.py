"""Clones and snapshots through the API: what is in them, whose they are, that both can be mounted at once, and that no
filesystem stays frozen, whoever is killed.

What other tools say of the copies is in `tests/kernel/test_volume_copy_files.py`; crashes at every step are in
`tests.crash`.
"""

import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, loop_configure
from sysproc_client import (
    AlreadyExists,
    Client,
    Container,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    SysprocError,
    Unavailable,
    Volume,
)
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

MIB = 2**20
SIZES = {"ext4": "32M", "btrfs": "128M", "xfs": "320M"}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(shutil.which(f"mkfs.{kind}") is None, reason=f"no mkfs.{kind}"))
    for kind in SIZES
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_snapshot_is_the_same_byte_by_byte_after_it_was_mounted(
    client: Client, box: Container, daemon: RunningDaemon, kind: str
) -> None:
    data = client.volumes.create("data", size=SIZES[kind], fs=kind)
    data.mount(box, "/data")
    says(box, "echo text >/data/file")
    before = set(volume_files(daemon))
    snapshot = data.snapshot("snapshot")
    (file,) = set(volume_files(daemon)) - before
    taken = digest(file)
    snapshot.mount(box, "/snapshot", read_only=True)
    assert says(box, "cat /snapshot/file") == b"text\n"
    client.volumes.unmount(box, "/snapshot")
    assert digest(file) == taken


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def volume_files(daemon: RunningDaemon) -> list[Path]:
    return [*(daemon.state_dir / "volumes").glob("*.vsf")]


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_a_mounted_volume_are_mounted_beside_it(client: Client, box: Container, kind: str) -> None:
    data = client.volumes.create("data", size=SIZES[kind], fs=kind)
    data.mount(box, "/data")
    says(box, "echo before >/data/file; mkdir /data/directory")
    clone, snapshot = data.clone("clone"), data.snapshot("snapshot")
    says(box, "echo after >/data/file")
    clone.mount(box, "/clone")
    snapshot.mount(box, "/snapshot", read_only=True)
    assert says(box, "cat /data/file /clone/file /snapshot/file") == b"after\nbefore\nbefore\n"
    says(box, "echo cloned >/clone/file; test -d /snapshot/directory")
    assert says(box, "cat /data/file /snapshot/file") == b"after\nbefore\n"
    again = clone.clone("again")
    again.mount(box, "/again")
    assert says(box, "cat /again/file") == b"cloned\n"
    uuids = {one.filesystems[0].uuid for one in (data, clone, snapshot, again)}
    assert len(uuids) == 4


def test_a_snapshot_shows_what_it_is_of_and_cannot_change(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="16M", owner=box, on_destroy="reparent")
    snapshot = data.snapshot("before")
    of = snapshot.snapshot_of
    assert of is not None and (of.name, of.owner_id) == ("data", int(box.id, 16))
    assert abs(snapshot.created.timestamp() - of.time.seconds) < 60
    assert data.refresh().snapshot_of is None
    assert (snapshot.size, snapshot.owner_id, snapshot.origin) == (16 * MIB, box.id, "made")
    for change in (lambda: snapshot.mount(box, "/x"), lambda: snapshot.grow("32M"), lambda: snapshot.shrink("12M")):
        with pytest.raises(FailedPrecondition, match="can only be read"):
            change()
    data.delete()
    assert client.volumes.get("box/before").snapshot_of == of
    clone = snapshot.clone("writable")
    assert clone.snapshot_of is None
    clone.mount(box, "/x")
    says(box, "echo new >/x/file")
    client.volumes.unmount(box, "/x")
    assert clone.grow("32M").size == 32 * MIB


def test_copies_are_of_several_filesystems_at_one_moment(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="64M", filesystems=[("a", "ext4", "16M"), ("b", "ext4", None)])
    for label in ("a", "b"):
        data.mount(box, f"/{label}", filesystem=label)
        says(box, f"echo {label} >/{label}/file")
    clone = data.clone("clone")
    for label in ("a", "b"):
        clone.mount(box, f"/clone-{label}", filesystem=label)
    assert says(box, "cat /clone-a/file /clone-b/file") == b"a\nb\n"


def test_names_requests_and_limits_are_as_those_of_any_volume(client: Client) -> None:
    box = client.create(size="32M", storage="100M", name="box")
    data = client.volumes.create("data", size="32M", owner=box)
    with pytest.raises(AlreadyExists):
        data.clone("data")
    assert data.clone("data", owner="0000000000000000").owner_id == ""
    request_id = "0f8fad5b-d9cb-469f-a165-70867728950e"
    first = data.snapshot("one", request_id=request_id)
    with pytest.raises(LimitExceeded):
        data.clone("two")
    data.delete()
    assert data.snapshot("one", request_id=request_id).message == first.message
    with pytest.raises(InvalidArgument, match="another request"):
        data.snapshot("other", request_id=request_id)
    with pytest.raises(InvalidArgument, match="name"):
        first.clone("A")


def test_a_container_copies_what_is_in_its_reach_only(client: Client) -> None:
    box, other = client.create(name="box"), client.create(name="other")
    client.volumes.create("data", size="16M", owner=other)
    client.volumes.create("data", size="16M", owner=box)
    script = """
child = client.create(name="child")
copy = client.volumes.get("data").clone("copy", owner="child")
answer = [copy.owner_id == child.id, copy.snapshot("before").owner_id == child.id]
"""
    assert script_inside(box, script) == [True, True]
    for attempt in (
        f'volume.clone("x", owner="{other.id}")',
        f'volume.message.owner_id = {int(other.id, 16)}; volume.snapshot("x", owner=".")',
        'volume.clone("x", overcommit=True)',
    ):
        assert script_inside(box, f'volume = client.volumes.get("data")\n{attempt}')[0] == "PermissionDenied"


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_an_encrypted_volume_is_copied_while_it_is_mounted_and_while_it_is_locked(
    client: Client, box: Container, encrypt: str
) -> None:
    parts = [("a", "ext4", "28M"), ("b", "ext4", None)]
    data = client.volumes.create("data", size="64M", filesystems=parts, encrypt=encrypt, secret="secret")
    for label in ("a", "b"):
        data.mount(box, f"/{label}", filesystem=label, secret="secret")
        says(box, f"echo {label} >/{label}/file")
    copies = [data.clone("open")]
    says(box, "echo other >/a/file")
    data.lock(force=True)
    copies.append(data.clone("locked"))
    for copy, shown in zip(copies, (b"a\nb\n", b"other\nb\n"), strict=True):
        assert copy.message.encryption == data.message.encryption
        with pytest.raises(FailedPrecondition, match="locked"):
            copy.mount(box, "/x", filesystem="a")
        for label in ("a", "b"):
            copy.mount(box, f"/{copy.name}-{label}", filesystem=label, secret="secret")
        assert says(box, f"cat /{copy.name}-a/file /{copy.name}-b/file") == shown
        copy.lock(force=True)


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_copies_of_an_encrypted_xfs_are_mounted_side_by_side(client: Client, box: Container, encrypt: str) -> None:
    """Their UUID is below the key."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("not installed: mkfs.xfs")
    data = client.volumes.create("data", size="340M", fs="xfs", encrypt=encrypt, secret="secret")
    data.mount(box, "/data", secret="secret")
    says(box, "echo first >/data/file")
    copy = data.clone("copy")
    copy.mount(box, "/copy", secret="secret")
    says(box, "echo second >/data/file; sync")
    assert says(box, "cat /data/file /copy/file") == b"second\nfirst\n"
    copy.lock(force=True)


WRITER = """
number=0; echo ready
while [ ! -e /stop ]; do
    number=$((number + 1))
    echo $number | dd of=/data/log oflag=append conv=notrunc,fsync 2>/dev/null || exit 1
    echo $number >/acknowledged.new; mv /acknowledged.new /acknowledged
done
"""


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_what_an_encrypted_volume_had_synced_is_in_each_copy(client: Client, box: Container, encrypt: str) -> None:
    data = client.volumes.create("data", size="64M", encrypt=encrypt, secret="secret")
    data.mount(box, "/data", secret="secret")
    says(box, "echo 0 >/acknowledged")
    with box.exec(["sh", "-c", WRITER], stdin=False) as writer:
        next(iter(writer))
        wait_until(lambda: acknowledged(box) > 5, "it writes")
        for number in range(3):
            before = acknowledged(box)
            snapshot = data.snapshot(f"snapshot-{number}")
            after = acknowledged(box)
            snapshot.mount(box, "/snapshot", read_only=True, secret="secret")
            written = says(box, "cat /snapshot/log").split()
            assert written == [b"%d" % one for one in range(1, len(written) + 1)]
            assert before <= len(written) <= after + 1
            snapshot.lock(force=True)
        says(box, "touch /stop")
        assert writer.wait().exit_code == 0


def acknowledged(box: Container) -> int:
    return int(says(box, "cat /acknowledged"))


def test_a_broken_one_is_not_copied_before_it_is_locked(client: Client, daemon: RunningDaemon, box: Container) -> None:
    data = client.volumes.create("data", size="48M", encrypt="fs", secret="secret")
    data.mount(box, "/data", secret="secret")
    says(box, "echo kept >/data/file; sync")
    ours = [one for one in psutil.process_iter() if one.pid not in (daemon.pid, daemon.launcher_pid)]
    (process,) = [one for one in ours if has_volume(one, daemon)]
    process.kill()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is gone")
    with pytest.raises(FailedPrecondition, match="broken"):
        data.clone("copy")
    data.lock(force=True)
    copy = data.clone("copy")
    copy.mount(box, "/copy", secret="secret")
    assert says(box, "cat /copy/file") == b"kept\n"
    copy.lock(force=True)


def has_volume(process: psutil.Process, daemon: RunningDaemon) -> bool:
    with suppress(OSError):
        return has_open(process.pid, daemon.state_dir / "volumes")
    return False


def test_a_raw_disk_is_not_copied_while_somebody_has_it(client: Client, daemon: RunningDaemon) -> None:
    data = client.volumes.create("data", size="16M")
    (file,) = (daemon.state_dir / "volumes").iterdir()
    with file.open("rb+") as disk:
        device, name = loop_configure(disk.fileno(), offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR)
    with pytest.raises(FailedPrecondition, match=name):
        data.clone("copy")
    os.close(device)
    data.clone("copy")


# -- nothing stays frozen


@pytest.fixture
def copying(daemon: RunningDaemon) -> Iterator[tuple[Container, list[int]]]:
    """A container whose volume is frozen, and the pids of the job and of its guard."""
    marker = daemon.directory / "here"
    daemon.kill9()
    daemon.kill_launcher()
    daemon.start(environment={"SYSPROC_FAILPOINTS": f"volumes.copy.before_thaw=1*block({marker})"})
    with Client(daemon.endpoint, patience=0) as client:
        box, data = client.create(name="box"), client.volumes.create("data", size="32M")
        data.mount(box, "/data")
        copying = threading.Thread(target=refused, args=(data,))
        copying.start()
        wait_until(marker.exists, "it is frozen")
        jobs = [one for one in psutil.Process(daemon.launcher_pid).children() if one.children()]
        (job,) = [one for one in jobs if has_open(one.pid, daemon.state_dir / "volumes")]
        yield box, [job.pid, *(one.pid for one in job.children())]
        copying.join()
    marker.unlink(missing_ok=True)


def has_open(pid: int, directory: Path) -> bool:
    """Whether a process has a file below the directory open."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return any(link.startswith(str(directory)) for link in links)


def refused(data: Volume) -> None:
    with pytest.raises(SysprocError):
        data.clone("copy")


def is_written(box: Container) -> bool:
    """Whether its volume is thawed; a launcher that was killed starts nothing for a moment."""
    with suppress(Unavailable):
        return box.run(["sh", "-c", "echo x >/data/file && sync"], timeout=30).exit_code == 0
    return False


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_job_that_is_killed_leaves_nothing_frozen(copying: tuple[Container, list[int]]) -> None:
    box, (job, _) = copying
    kill(job)
    assert is_written(box)


def test_a_job_whose_guard_was_killed_too_leaves_nothing_frozen(copying: tuple[Container, list[int]]) -> None:
    box, (job, guard) = copying
    kill(guard, job)
    assert is_written(box)


def test_a_launcher_that_is_killed_leaves_nothing_frozen(
    copying: tuple[Container, list[int]], daemon: RunningDaemon
) -> None:
    daemon.kill_launcher()
    wait_until(partial(is_written, copying[0]), "it can be written to", 30)


def test_when_all_are_killed_the_next_start_thaws(copying: tuple[Container, list[int]], daemon: RunningDaemon) -> None:
    box, (job, guard) = copying
    os.kill(daemon.pid, signal.SIGSTOP)  # it would thaw, and the launcher end the job if it were gone
    kill(guard, job)
    daemon.kill_launcher()
    daemon.kill9()
    daemon.start()
    with Client(daemon.endpoint) as client:
        assert is_written(client.get(box.id))
        assert [one.name for one in client.volumes.list()] == ["data"]
