"""Volumes to files and back, through the API and the command: what other tools make of the files, what goes on after a
break, what is refused, and that nothing is left of what was broken off.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client import (
    AlreadyExists,
    Client,
    Container,
    FailedPrecondition,
    InvalidArgument,
    LimitExceeded,
    Volume,
)
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

MIB = 2**20


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


@pytest.fixture
def data(client: Client, box: Container) -> Volume:
    """Mounted, with something in it."""
    made = client.volumes.create("data", size="64M")
    made.mount(box, "/data")
    says(box, "echo kept >/data/file; dd if=/dev/urandom of=/data/large bs=1M count=5 2>/dev/null; sync")
    return made


def digest_of(file: Path) -> bytes:
    whole, content = hashlib.sha256(), file.read_bytes()
    for at in range(0, len(content), MIB):
        whole.update(hashlib.sha256(content[at : at + MIB]).digest())
    return whole.digest()


def test_a_mounted_volume_is_exported_and_imported_by_another_service(
    client: Client, box: Container, data: Volume, tmp_path: Path
) -> None:
    sums = says(box, "cd /data; md5sum file large")
    file = tmp_path / "data.img"
    digest = data.export_to(file)
    assert digest == digest_of(file)
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (64 * MIB, 0o666 & ~umask())
    assert file.stat().st_blocks * 512 < 30 * MIB
    assert os.listdir(tmp_path) == ["data.img"]
    listed = subprocess.run(["sfdisk", "-l", file], capture_output=True, text=True, check=True).stdout
    assert "Linux filesystem" in listed
    with RunningDaemon() as other, Client(other.endpoint) as elsewhere:
        copy = elsewhere.volumes.import_from("copy", file, trusted=True)
        assert (copy.size, copy.origin) == (64 * MIB, "trusted")
        assert [(one.label, one.uuid) for one in copy.filesystems] == [("data", data.filesystems[0].uuid)]
        there = elsewhere.create()
        copy.mount(there, "/data")
        assert says(there, "cd /data; md5sum file large") == sums
        there.destroy()
        wait_until(partial(is_free, copy), "nothing holds it")
        assert copy.export_to(tmp_path / "again.img") != b""
        copy.delete()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_packed_it_is_what_zstd_reads_and_writes(client: Client, data: Volume, tmp_path: Path) -> None:
    packed, plain = tmp_path / "data.img.zst", tmp_path / "plain.img"
    digest = data.export_to(packed)
    subprocess.run(["zstd", "-q", "-d", packed, "-o", plain], check=True)
    assert digest_of(plain) == digest
    assert packed.stat().st_size < 10 * MIB
    subprocess.run(["zstd", "-q", "-f", "--long=27", plain, "-o", packed], check=True)
    again = tmp_path / "again.img"
    for source in (packed, io.BytesIO(packed.read_bytes()), plain, io.BytesIO(plain.read_bytes())):
        copy = client.volumes.import_from("copy", source, as_is=True)
        assert (copy.origin, copy.size) == ("foreign", 64 * MIB)
        copy.export_to(again, replace=True)
        assert again.read_bytes() == plain.read_bytes()
        copy.delete()


def test_a_file_without_a_table_is_a_volume_too(client: Client, box: Container, tmp_path: Path) -> None:
    file = tmp_path / "plain.ext4"
    with file.open("wb") as made:
        made.truncate(16 * MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "mine", file], check=True)
    volume = client.volumes.import_from("plain", file, trusted=True)
    assert [(one.label, one.size_bytes) for one in volume.filesystems] == [("mine", 16 * MIB)]
    volume.mount(box, "/plain")
    says(box, "touch /plain/file")
    assert [one.filesystem for one in volume.refresh().attached_to] == ["mine"]
    volume.clone("clone").mount(box, "/clone")
    says(box, "test -e /clone/file")


def test_what_is_kept_as_it_is_is_not_mounted(client: Client, box: Container, data: Volume, tmp_path: Path) -> None:
    data.export_to(tmp_path / "image")
    copy = client.volumes.import_from("copy", tmp_path / "image", as_is=True)
    with pytest.raises(FailedPrecondition, match="written elsewhere"):
        copy.mount(box, "/copy")
    with pytest.raises(FailedPrecondition, match="written elsewhere"):
        copy.grow("128M")
    assert copy.clone("clone").origin == "foreign"
    copy.attach(box)
    copy.detach(box)
    with pytest.raises(InvalidArgument, match="trusted"):
        client.volumes.import_from("other", tmp_path / "image", as_is=True, trusted=True)
    copy.trust()
    copy.mount(box, "/copy")
    assert says(box, "cat /copy/file") == b"kept\n"


def test_what_is_no_image_is_refused_and_leaves_nothing(client: Client, daemon: RunningDaemon, tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content, why in ((b"x" * 3 * MIB, "neither"), (b"", "bytes"), (b"\x28\xb5\x2f\xfdno", "zstd")):
        file.write_bytes(content)
        with pytest.raises(InvalidArgument, match=why):
            client.volumes.import_from("x", file)
    with pytest.raises(FileNotFoundError):
        client.volumes.import_from("x", tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="source"):
        client.volumes.import_from("x", 5)  # type: ignore[arg-type]  # what somebody may give
    assert client.volumes.list() == [] and list((daemon.state_dir / "volumes").iterdir()) == []


def test_names_and_limits_count_before_anything_is_sent(client: Client, data: Volume, tmp_path: Path) -> None:
    client.create(name="small", size="32M", storage="64M")
    data.export_to(tmp_path / "image")
    with pytest.raises(AlreadyExists):
        client.volumes.import_from("data", tmp_path / "image")
    with pytest.raises(LimitExceeded):
        client.volumes.import_from("x", tmp_path / "image", owner="small")
    with pytest.raises(FileExistsError):
        data.export_to(tmp_path / "image")
    with pytest.raises(LimitExceeded):
        client.volumes.import_from("x", io.BytesIO((tmp_path / "image").read_bytes()), owner="small")
    assert os.listdir(tmp_path) == ["image"]


def test_a_container_sends_and_receives_but_does_not_vouch(client: Client) -> None:
    box, other = client.create(name="box"), client.create(name="other")
    client.volumes.create("theirs", size="16M", owner=other)
    script = """
import io
client.volumes.create("data", size="16M").export_to("/tmp/image")
copy = client.volumes.import_from("copy", "/tmp/image")
answer = [copy.origin, copy.owner_id]
"""
    assert script_inside(box, script) == ["made", box.id]
    refused = 'client.volumes.import_from("x", "/tmp/image", trusted=True)'
    assert script_inside(box, refused) == ["PermissionDenied", "TRUST"]
    for attempt in (
        f'client.volumes.import_from("x", "/tmp/image", owner="{other.id}")',
        f'client.volumes.get("theirs", owner="{other.id}").export_to("/tmp/x")',
    ):
        assert script_inside(box, attempt) == ["PermissionDenied", "OUT_OF_REACH"]


# -- broken off


def exported(client: Client, request: service.ExportVolumeRequest, most: int = 1000) -> list[service.Piece]:
    """The first pieces of a call, which is broken off then."""
    call = client.volumes._stub.ExportVolume(request)
    found = []
    for answer in call:
        if answer.WhichOneof("part") == "piece":
            found.append(answer.piece)
        if len(found) == most:
            call.cancel()
            break
    return found


def test_an_export_that_was_broken_off_goes_on_with_the_same_moment(
    client: Client, box: Container, data: Volume, tmp_path: Path
) -> None:
    request = service.ExportVolumeRequest(volume=data.ref, export_id=str(uuid.uuid4()))
    first = exported(client, request, most=3)
    says(box, "echo other >/data/file; rm /data/large; sync")
    request.offset = first[-1].offset + first[-1].size_bytes
    rest = exported(client, request)
    image = io.BytesIO()
    for piece in [*first, *rest]:
        assert piece.offset == image.tell()
        image.write(piece.data or bytes(piece.size_bytes))
    copy = client.volumes.import_from("copy", io.BytesIO(image.getvalue()), trusted=True)
    copy.mount(box, "/copy")
    assert says(box, "cat /copy/file; ls /copy/large") == b"kept\n/copy/large\n"
    request.offset = MIB
    with pytest.raises(FailedPrecondition, match="Nothing is kept"):
        client._call(lambda it, timeout: list(client.volumes._stub.ExportVolume(it)), request)


def test_an_import_that_was_broken_off_goes_on(client: Client, data: Volume, tmp_path: Path) -> None:
    data.export_to(tmp_path / "image")
    content = (tmp_path / "image").read_bytes()
    header = service.ImportVolumeRequest.Header(name="copy", request_id=str(uuid.uuid4()), size_bytes=len(content))

    def parts(offset: int, end: int) -> Iterator[service.ImportVolumeRequest]:
        yield service.ImportVolumeRequest(header=header)
        for at in range(offset, end, MIB):
            block = content[at : at + MIB]
            sha256 = hashlib.sha256(block).digest()
            piece = service.Piece(offset=at, size_bytes=MIB, data=block, sha256=sha256)
            yield service.ImportVolumeRequest(piece=piece)

    with pytest.raises(Exception, match="without a trailer"):
        list(client.volumes._stub.ImportVolume(parts(0, 10 * MIB)))
    again = client.volumes._stub.ImportVolume(parts(10 * MIB, 10 * MIB))
    assert next(again).ready.offset == 10 * MIB
    again.cancel()

    def rest() -> Iterator[service.ImportVolumeRequest]:
        yield from parts(10 * MIB, len(content))
        trailer = service.ImportVolumeRequest.Trailer(digest=digest_of(tmp_path / "image"))
        yield service.ImportVolumeRequest(trailer=trailer)

    for _ in range(2):
        *_, last = client.volumes._stub.ImportVolume(rest())
        assert last.imported.volume.name == "copy"
    assert len(client.volumes.list()) == 2


def test_of_an_import_whose_client_hangs_up_with_the_answer_nothing_is_kept(
    client: Client, data: Volume, tmp_path: Path
) -> None:
    """The leak check looks for the file: it would be there for ten minutes."""
    data.export_to(tmp_path / "image")
    content, digest = (tmp_path / "image").read_bytes(), digest_of(tmp_path / "image")

    Request = service.ImportVolumeRequest

    def parts(name: str) -> Iterator[service.ImportVolumeRequest]:
        yield Request(header=Request.Header(name=name, request_id=str(uuid.uuid4()), as_is=True))
        for at in range(0, len(content), MIB):
            block = content[at : at + MIB]
            sha256 = hashlib.sha256(block).digest()
            yield Request(piece=service.Piece(offset=at, size_bytes=len(block), data=block, sha256=sha256))
        yield Request(trailer=Request.Trailer(digest=digest))

    for number in range(20):
        call = client.volumes._stub.ImportVolume(parts(f"copy-{number}"))
        while next(call).WhichOneof("update") != "imported":
            pass
        call.cancel()


def test_who_gives_up_leaves_nothing(client: Client, data: Volume, daemon: RunningDaemon, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done > 3 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.export_to(tmp_path / "image", progress=stop)
    assert os.listdir(tmp_path) == []
    data.export_to(tmp_path / "image")

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 3 * MIB:
                raise OSError(5, "broken")
            return super().read(size)

    with pytest.raises(OSError, match="broken"):
        client.volumes.import_from("copy", Broken((tmp_path / "image").read_bytes()))
    assert [one.name for one in client.volumes.list()] == ["data"]
    assert len(list((daemon.state_dir / "volumes").iterdir())) == 1


def test_the_command_carries_volumes(sysproc: Sysproc, client: Client, data: Volume, tmp_path: Path) -> None:
    file = str(tmp_path / "data.img.zst")
    told = json.loads(sysproc("volume", "export", "data", file, "-o", "json").stdout)
    assert (told["name"], told["size"], len(told["digest"])) == ("data", 64 * MIB, 64)
    assert sysproc("volume", "import", "copy", file, "--trust").stdout == b"copy\n"
    raw = sysproc("volume", "export", "copy", "-").stdout
    assert len(raw) == 64 * MIB
    for option, origin in (([], "made"), (["--as-is"], "foreign")):
        client.volumes.get("copy").delete()
        assert sysproc("volume", "import", "copy", "-", *option, input=raw).stdout == b"copy\n"
        assert client.volumes.get("copy").origin == origin
    for arguments, says_so in (
        (("export", "nothing", "-"), b"There is no volume"),
        (("export", "data", file), b"one already"),
        (("export", "data", str(tmp_path / "no" / "file")), b"No such file"),
        (("import", "copy", file), b"already"),
        (("import", "x", "/dev/null"), b"0 have come"),
        (("import", "x", str(tmp_path)), b"directory"),
    ):
        refused = sysproc("volume", *arguments)
        assert refused.returncode == 1 and says_so in refused.stderr and b"Traceback" not in refused.stderr
