"""Images of others, and of containers, become volumes that are mounted: what is in them is copied, and nothing else of
them is given to the kernel. What cannot be copied is refused, and the error says what else can be done.

How it is copied, with all that a filesystem can have, is in `tests/kernel/test_volume_remake.py`; how images travel in
`tests.e2e.test_volume_transfers`; crashes at every step are in `tests.crash`.
"""

import io
import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client import Client, Container, InvalidArgument, LimitExceeded, SysprocError, Volume
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

MIB = 2**20
COMMAND = str(Path(sys.executable).with_name("sysproc"))
# All that can be told of a tree in a container: names, modes, owners, sizes, times, links, digests.
LISTED = """
cd /data; find . -xdev ! -name lost+found | sort | xargs stat -c '%n %f %u %g %h %Y'; md5sum file d/*; readlink link
"""
FILLED = """
cd /data; echo kept >file; mkdir d; head -c 3000000 /dev/urandom >d/large; ln file d/hard; ln -s d/large link
mkfifo -m 604 fifo; chown 1000:100 file; chmod 4750 d/large; chmod 1777 d; touch -d '2001-02-03 04:05:06' d/large; sync
"""
ATTRIBUTES = (b"user.note", b"some value")


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


def files_of(daemon: RunningDaemon) -> list[str]:
    return os.listdir(daemon.state_dir / "volumes")


def root_of(box: Container) -> Path:
    """Its files as the host sees them."""
    return Path(f"/proc/{next(one.host_pid for one in box.ps() if one.pid == 1)}/root")


def ext4_of(folder: Path, file: Path, *options: str, size: str = "16M") -> Path:
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *options, "-d", folder, file, size], check=True, capture_output=True)
    return file


def many_files(client: Client, file: Path) -> Path:
    """The image of a volume that takes a while to be copied: made inside, where it costs the host's disk nothing."""
    box = client.create(name="maker")
    made = client.volumes.create("many", size="128M", owner=box)
    made.mount(box, "/data")
    says(box, "cd /data; for d in $(seq 100); do mkdir $d; (cd $d; seq 100 | xargs touch); done")
    made.export_to(file)
    box.destroy()
    return file


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An ext4 of another tool, with a file in it."""
    folder = tmp_path / "content"
    folder.mkdir()
    (folder / "file").write_text("from elsewhere\n")
    return ext4_of(folder, tmp_path / "image.ext4", "-L", "mine")


@pytest.mark.parametrize("how", ["export", "snapshot", "clone"])
def test_what_one_container_has_sent_another_below_it_mounts_as_it_was(
    client: Client, box: Container, how: str
) -> None:
    child = client.create(parent=box, name="child")
    data = client.volumes.create("data", size="32M", owner=box)
    data.mount(box, "/data")
    says(box, FILLED)
    os.setxattr(root_of(box) / "data/file", *ATTRIBUTES)
    before = says(box, LISTED)
    script = f"""
sent = client.volumes.get("data")
if {how!r} != "export":
    sent = getattr(sent, {how!r})("copy")
sent.export_to("/tmp/sent")
answer = "sent"
"""
    assert script_inside(box, script) == "sent"
    assert child.run(["sh", "-c", "cat >/tmp/got"], input=says(box, "cat /tmp/sent")).exit_code == 0
    receive = """
got = client.volumes.import_from("got", "/tmp/got")
got.mount(".", "/data")
answer = [got.origin, got.owner_id]
"""
    assert script_inside(child, receive) == ["made", child.id]
    assert says(child, LISTED) == before
    assert os.getxattr(root_of(child) / "data/file", ATTRIBUTES[0]) == ATTRIBUTES[1]
    says(child, "echo more >>/data/file; sync")
    assert says(box, "cat /data/file") == b"kept\n"


def test_several_filesystems_are_several_afterwards(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="64M", filesystems=[("root", "ext4", "16M"), ("home", "ext4", None)])
    for label in ("root", "home"):
        data.mount(box, f"/{label}", filesystem=label)
        says(box, f"echo {label} >/{label}/file")
    sent = io.BytesIO()
    data.export_to(sent)
    sent.seek(0)
    got = client.volumes.import_from("got", sent)
    assert [one.label for one in got.filesystems] == ["root", "home"]
    assert {one.uuid for one in got.filesystems}.isdisjoint(one.uuid for one in data.filesystems)
    for label in ("root", "home"):
        got.mount(box, f"/got-{label}", filesystem=label)
    assert says(box, "cat /got-root/file /got-home/file") == b"root\nhome\n"


def test_a_filesystem_of_another_tool_is_a_volume_of_ours(client: Client, box: Container, image: Path) -> None:
    got = client.volumes.import_from("got", image)
    assert ([one.label for one in got.filesystems], got.origin) == (["mine"], "made")
    got.mount(box, "/got")
    assert says(box, "cat /got/file") == b"from elsewhere\n"
    client.volumes.unmount(box, "/got")
    wait_until(partial(is_free, got), "nothing holds it")
    assert got.grow("64M").size == 64 * MIB
    assert [one.result for one in got.check()] == ["clean"]


@pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no mkfs.erofs")
def test_a_compressed_image_is_copied_too(client: Client, box: Container, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "zeros").write_bytes(bytes(20 * MIB))
    subprocess.run(["mkfs.erofs", "-zlz4", tmp_path / "image", folder], check=True, capture_output=True)
    got = client.volumes.import_from("got", tmp_path / "image")
    got.mount(box, "/got")
    assert says(box, "stat -c %s /got/zeros") == b"20971520\n"


@pytest.mark.parametrize("kind", ["btrfs", "xfs", "luks", "damaged", "feature"])
def test_what_cannot_be_copied_is_refused_and_the_way_out_is_said(
    client: Client, daemon: RunningDaemon, box: Container, image: Path, tmp_path: Path, kind: str
) -> None:
    file, reason = tmp_path / "file", "VOLUME_NOT_READABLE"
    if kind in ("btrfs", "xfs"):
        if shutil.which(f"mkfs.{kind}") is None:
            pytest.skip(f"no mkfs.{kind}")
        with file.open("wb") as made:
            made.truncate(320 * MIB)
        subprocess.run([f"mkfs.{kind}", "-q", file], check=True, capture_output=True)
    elif kind == "luks":
        sent = io.BytesIO()
        client.volumes.create("safe", size="48M", encrypt="whole", secret="secret").export_to(sent)
        client.volumes.get("safe").delete()
        file.write_bytes(sent.getvalue())
    elif kind == "damaged":
        content, reason = bytearray(image.read_bytes()), "VOLUME_DAMAGED"
        content[1024 + 0x78] ^= 1  # in the superblock, whose checksum is wrong then
        file.write_bytes(content)
    else:
        (tmp_path / "empty").mkdir()
        ext4_of(tmp_path / "empty", file, "-O", "ea_inode")
    with pytest.raises(InvalidArgument) as refused:
        client.volumes.import_from("got", file)
    assert refused.value.reason == reason
    assert ("--trust" in refused.value.resolution and "--as-is" in refused.value.resolution) == (kind != "damaged")
    assert client.volumes.list() == [] and files_of(daemon) == []
    assert client.volumes.import_from("kept", file, as_is=True).origin == "foreign"


def test_what_becomes_larger_than_the_owner_may_have_is_refused(
    client: Client, daemon: RunningDaemon, image: Path
) -> None:
    client.create(name="small", size="32M", storage="44M")
    with pytest.raises(LimitExceeded):
        client.volumes.import_from("got", image, owner="small")
    client.create(name="enough", size="32M", storage="56M")
    got = client.volumes.import_from("got", image, owner="enough")
    assert got.size == 18 * MIB
    with pytest.raises(LimitExceeded):
        got.clone("another")
    assert len(files_of(daemon)) == 1


def test_the_same_import_twice_is_one_volume(client: Client, image: Path) -> None:
    request_id = str(uuid.uuid4())
    first = client.volumes.import_from("got", image, request_id=request_id)
    again = client.volumes.import_from("got", image, request_id=request_id)
    assert first.message == again.message and len(client.volumes.list()) == 1


def test_device_nodes_are_left_out_and_that_is_said(sysproc: Sysproc, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "devices"
    folder.mkdir()
    os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
    done = sysproc("volume", "import", "got", str(ext4_of(folder, tmp_path / "image")))
    assert (done.returncode, done.stdout) == (0, b"got\n")
    assert b"left out: 1" in done.stderr


def test_who_goes_away_while_it_is_copied_leaves_nothing_and_may_come_back(
    client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    content = many_files(client, tmp_path / "image").read_bytes()
    header = service.ImportVolumeRequest.Header(name="got", request_id=str(uuid.uuid4()), size_bytes=len(content))

    def parts(begin: int) -> Iterator[service.ImportVolumeRequest]:
        import hashlib

        yield service.ImportVolumeRequest(header=header)
        for at in range(begin, len(content), MIB):
            data = content[at : at + MIB]
            data = data if any(data) else b""
            piece = service.Piece(offset=at, size_bytes=MIB, data=data, sha256=hashlib.sha256(data).digest())
            yield service.ImportVolumeRequest(piece=piece)
        yield service.ImportVolumeRequest(trailer=service.ImportVolumeRequest.Trailer())

    call = client.volumes._stub.ImportVolume(parts(0))
    for answer in call:
        if answer.WhichOneof("update") == "progress":
            break
    call.cancel()
    assert answer.progress.entries > 0
    assert client.volumes.list() == [] and files_of(daemon) == []
    wait_until(partial(no_job_is_left, daemon), "the copy has ended")
    *_, last = client.volumes._stub.ImportVolume(parts(len(content)))
    assert last.imported.volume.name == "got"


def test_ctrl_c_while_it_is_copied_leaves_nothing_and_says_how_far_it_was(
    client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    image = many_files(client, tmp_path / "image")
    ours, theirs = pty.openpty()
    command = [COMMAND, "--endpoint", daemon.endpoint, "volume", "import", "got", str(image)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        wait_until(lambda: not no_job_is_left(daemon), "it is copied")
        assert process.poll() is None and len(received(daemon)) > 1
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
    assert b"of 128M" in os.read(ours, 1 << 16)
    os.close(ours)
    wait_until(partial(no_job_is_left, daemon), "the copy has ended")
    wait_until(lambda: received(daemon) == [], "what has come is forgotten")
    assert client.volumes.list() == [] and files_of(daemon) == []


def received(daemon: RunningDaemon) -> list[str]:
    """Files without a name that the daemon has open among its volumes."""
    found = []
    for fd in os.listdir(f"/proc/{daemon.pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{daemon.pid}/fd/{fd}"))
    return [link for link in found if link.startswith(str(daemon.state_dir / "volumes")) and "(deleted)" in link]


def no_job_is_left(daemon: RunningDaemon) -> bool:
    """The launcher has no children but keepers, of which there are none without containers."""
    return Path(f"/proc/{daemon.launcher_pid}/task/{daemon.launcher_pid}/children").read_text() == ""


def test_killed_in_the_middle_nothing_is_left(client: Client, daemon: RunningDaemon, image: Path) -> None:
    def importing() -> None:
        with suppress(SysprocError, ConnectionError), Client(daemon.endpoint, patience=0) as own:
            for number in range(100):
                own.volumes.import_from(f"got-{number}", image)

    thread = threading.Thread(target=importing)
    thread.start()
    wait_until(lambda: len(client.volumes.list()) > 1, "some are there")
    daemon.kill9()
    thread.join()
    daemon.start()
    found = client.volumes.list()
    assert len(files_of(daemon)) == len(found) and {one.origin for one in found} == {"made"}
    assert all(one.result == "clean" for one in found[-1].check())
