"""Encrypted volumes that are carried elsewhere: under another state directory they are opened by the same secret.

What opens them, and what can be seen of them, is in `tests.e2e.test_encrypted_volumes`; how images travel in
`tests.e2e.test_volume_transfers`.
"""

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from sysproc.storage.decrypted.sectors import DecryptedSectors
from sysproc.storage.luks.key_derivation import Cost
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import open_volume, unlock
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.layout import Wanted, least_disk_bytes, plan
from sysproc_client import Client, Container, FailedPrecondition, PermissionDenied, SysprocError, Volume
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import encrypted_image, volume_processes
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

CRYPTSETUP = shutil.which("cryptsetup") or shutil.which("cryptsetup", path="/usr/sbin:/sbin")
MIB, SECRET = 2**20, "correct horse battery staple"
PARTS = [("root", "ext4", "28M"), ("home", "ext4", None)]
pytestmark = pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="this kernel has no FUSE (/dev/fuse)")


def delete_all(client: Client) -> None:
    for volume in client.volumes.list():
        wait_until(partial(is_locked, volume), "nothing holds it")
        volume.delete()


def is_locked(volume: Volume) -> bool:
    return not volume.refresh().unlocked


@pytest.fixture
def elsewhere() -> Iterator[Client]:
    """Another service, with a state directory of its own."""
    with RunningDaemon() as other, Client(other.endpoint) as client:
        yield client
        other.destroy_all()
        delete_all(client)


def sent(volume: Volume) -> io.BytesIO:
    image = io.BytesIO()
    volume.export_to(image)
    image.seek(0)
    return image


def filled(client: Client, box: Container, encrypt: str) -> Volume:
    """Two filesystems with something in each, locked again."""
    data = client.volumes.create("data", size="64M", filesystems=PARTS, encrypt=encrypt, secret=SECRET)
    for label in ("root", "home"):
        data.mount(box, f"/{label}", filesystem=label, secret=SECRET)
        says(box, f"echo {label} >/{label}/file")
    data.lock(force=True)
    return data


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_it_is_opened_by_its_secret_under_another_state_directory(
    client: Client, elsewhere: Client, box: Container, encrypt: str
) -> None:
    data = filled(client, box, encrypt)
    there, got = elsewhere.create(), elsewhere.volumes.import_from("got", sent(data), trusted=True)
    assert (got.encryption, got.origin, got.size) == (encrypt, "trusted", 64 * MIB)
    assert got.refresh().key_slots == ({"root": [0], "home": [0]} if encrypt == "fs" else {"data": [0]})
    for secret, error in ((None, FailedPrecondition), ("wrong", PermissionDenied)):
        with pytest.raises(error):
            got.mount(there, "/root", filesystem="root", secret=secret)
    with pytest.raises(FailedPrecondition, match="not known yet"):
        got.grow("128M", secret=SECRET)
    got.mount(there, "/root", filesystem="root", secret=SECRET)
    got.mount(there, "/home", filesystem="home", secret=SECRET, read_only=True)
    assert says(there, "cat /root/file /home/file") == b"root\nhome\n"
    assert [(one.label, one.type, one.size_bytes) for one in got.refresh().filesystems] == [
        (one.label, one.type, one.size_bytes) for one in data.filesystems
    ]
    says(there, "echo there >/root/more; sync")
    got.lock(force=True)
    grown = got.grow("96M", secret=SECRET)
    grown.mount(there, "/home", filesystem="home", secret=SECRET)
    assert says(there, "cat /home/file; test $(df -m /home | tail -1 | awk '{print $2}') -gt 30") == b"home\n"
    grown.lock(force=True)


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_a_clone_of_what_was_never_opened_here_is_opened_too(
    client: Client, elsewhere: Client, box: Container, encrypt: str
) -> None:
    got = elsewhere.volumes.import_from("got", sent(filled(client, box, encrypt)), trusted=True)
    there, clone = elsewhere.create(), got.clone("clone")
    clone.mount(there, "/root", filesystem="root", secret=SECRET)
    assert says(there, "cat /root/file") == b"root\n"
    clone.lock(force=True)


def test_kept_as_it_is_the_host_has_to_vouch_for_it_first(client: Client, box: Container) -> None:
    data = client.volumes.create("data", size="48M", encrypt="whole", secret=SECRET)
    got = client.volumes.import_from("got", sent(data), as_is=True)
    assert (got.encryption, got.origin) == ("whole", "foreign")
    with pytest.raises(FailedPrecondition, match="written elsewhere"):
        got.mount(box, "/got", secret=SECRET)
    got.trust()
    got.mount(box, "/got", secret=SECRET)
    got.lock(force=True)
    image = "/tmp/image"
    script = f"client.volumes.create('own', size='48M', encrypt='fs', secret='x').export_to({image!r})"
    script_inside(box, f"{script}; answer = 1")
    refused = script_inside(box, f"client.volumes.import_from('again', {image!r})")
    assert refused == ["InvalidArgument", "VOLUME_NOT_READABLE"]


def formatted(file: Path, kind: str) -> Path:
    """By cryptsetup, with keys that are quickly worked out."""
    if CRYPTSETUP is None:
        pytest.skip("cryptsetup is not installed (apt install cryptsetup-bin)")
    file.write_bytes(bytes(48 * MIB))
    quick = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file=-")
    command = [CRYPTSETUP, "luksFormat", "-q", "--type", kind, *quick, str(file)]
    done = subprocess.run(command, input=SECRET.encode(), capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cryptsetup cannot make it here: {done.stderr.decode()[:200]}")
    return file


def test_a_filesystem_in_luks_without_any_table_is_opened(client: Client, tmp_path: Path, box: Container) -> None:
    file, plain = formatted(tmp_path / "image", "luks2"), tmp_path / "plain"
    (tmp_path / "content").mkdir()
    (tmp_path / "content/file").write_text("inside\n")
    subprocess.run(["mke2fs", "-q", "-b", "4096", "-L", "theirs", "-d", tmp_path / "content", plain, "16M"], check=True)
    with file.open("rb+") as whole, plain.open("rb") as source:
        region = Region.whole(whole.fileno())
        header = open_volume(region)
        with unlock(region, header, memoryview(SECRET.encode())).key as key:
            sectors, at = DecryptedSectors(region, header.metadata.segment, key.view), 0
            while block := source.read(MIB):
                sectors.write(memoryview(bytearray(block)), at)
                at += len(block)
    got = client.volumes.import_from("got", file, trusted=True)
    got.mount(box, "/got", secret=SECRET)
    assert says(box, "cat /got/file") == b"inside\n"
    assert [one.label for one in got.refresh().filesystems] == ["theirs"]
    got.mount(box, "/again", filesystem="theirs")
    got.lock(force=True)


def test_the_first_mount_works_its_key_out_once(
    client: Client, daemon: RunningDaemon, tmp_path: Path, box: Container
) -> None:
    plain = tmp_path / "plain"
    subprocess.run(["mke2fs", "-q", "-b", "4096", plain, "16M"], check=True)
    slow = Cost(passes=12, memory_kib=32 << 10, lanes=1)
    got = client.volumes.import_from("got", encrypted_image(plain, tmp_path / "image", slow), trusted=True)
    with ThreadPoolExecutor(1) as thread:
        mounting, seen = thread.submit(got.mount, box, "/got", secret=SECRET), set[int]()
        while not mounting.done():
            seen.update(volume_processes(daemon))
    mounting.result()
    assert len(seen) == 1
    got.lock(force=True)


def test_what_is_encrypted_otherwise_is_refused_unless_it_is_just_kept(client: Client, tmp_path: Path) -> None:
    file = formatted(tmp_path / "image", "luks1")
    with pytest.raises(SysprocError) as refused:
        client.volumes.import_from("got", file, trusted=True)
    assert refused.value.reason == "LUKS_NOT_SUPPORTED" and client.volumes.list() == []
    assert client.volumes.import_from("got", file, as_is=True).encryption == ""


def mixed_disk(file: Path, work: Path) -> Path:
    """A disk with one ext4 in plain sight, and one in LUKS."""
    plain = work / "filesystem"
    subprocess.run(["mke2fs", "-q", "-b", "4096", plain, "16M"], check=True)
    safe = encrypted_image(plain, work / "safe").read_bytes()
    sizes = (("open", plain.read_bytes()), ("safe", safe))
    gpt = plan([Wanted(label, len(data)) for label, data in sizes], least_disk_bytes([len(data) for _, data in sizes]))
    with file.open("wb+") as made:
        fresh_vsf(made.fileno(), gpt)
        for partition, (_, data) in zip(gpt.partitions, sizes, strict=True):
            os.pwrite(made.fileno(), data, partition.offset_bytes)
    return file


def test_of_a_disk_with_some_encrypted_partitions_each_is_what_it_is(
    client: Client, daemon: RunningDaemon, tmp_path: Path, box: Container
) -> None:
    got = client.volumes.import_from("got", mixed_disk(tmp_path / "image", tmp_path), trusted=True)
    assert {one.label: one.encrypted for one in got.filesystems} == {"open": False, "safe": True}
    assert got.encryption == "fs" and got.refresh().key_slots == {"open": [], "safe": [0]}
    got.mount(box, "/open", filesystem="open")
    with pytest.raises(FailedPrecondition, match="locked"):
        got.mount(box, "/safe", filesystem="safe")
    got.mount(box, "/safe", filesystem="safe", secret=SECRET)
    says(box, "echo one >/open/file; echo two >/safe/file; sync")
    assert {one.filesystem for one in got.refresh().attached_to} == {"open", "safe"}
    copy = got.clone("copy")
    copy.mount(box, "/copy", filesystem="open", read_only=True)
    assert says(box, "cat /copy/file") == b"one\n"
    client.volumes.unmount(box, "/copy")
    got.lock(force=True)
    assert volume_processes(daemon) == [] and [one.filesystem for one in got.refresh().attached_to] == ["open"]
    assert says(box, "cat /open/file") == b"one\n"
    client.volumes.unmount(box, "/open")
    got.change_key(SECRET, "another")
    assert [(one.filesystem, one.result) for one in got.check(secret="another")] == [
        ("open", "clean"),
        ("safe", "clean"),
    ]
    grown = got.grow("96M", secret="another")
    assert grown.filesystems[1].size_bytes == 96 * MIB - 18 * MIB
    got.mount(box, "/safe", filesystem="safe", secret="another")
    assert says(box, "cat /safe/file") == b"two\n"
    got.lock(force=True)
