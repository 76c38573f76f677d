"""Encrypted volumes, through the API and the command: what opens them, what can be seen of them, where keys are."""

import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from sysproc.linux.device_mapper import why_not
from sysproc.storage.luks.region import Region
from sysproc.storage.vsf.disk import read_disk
from sysproc.unlocking import AT_A_TIME
from sysproc_client import (
    Client,
    Container,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse, the_file, volume_processes
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

CRYPTSETUP = shutil.which("cryptsetup") or shutil.which("cryptsetup", path="/usr/sbin:/sbin")
OTHER = b"\x00\xff another one\n"
# Runs a command with what it has as its input as its controlling terminal.
OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
pytestmark = needs_fuse
# Of each open volume; dm-crypt needs none.
PROCESSES = 0 if why_not() is None else 1


def cryptsetup_opens(path: Path, secret: bytes) -> bool:
    if CRYPTSETUP is None:
        pytest.skip("cryptsetup is not installed (apt install cryptsetup-bin)")
    command = [CRYPTSETUP, "open", "--test-passphrase", "--key-file=-", str(path)]
    return subprocess.run(command, input=secret, capture_output=True, check=False).returncode == 0


def part_of(path: Path, number: int, target: Path) -> Path:
    """A partition as a file of its own."""
    with path.open("rb") as file:
        part = read_disk(file.fileno())[number]
        file.seek(part.offset_bytes)
        target.write_bytes(file.read(part.size_bytes))
    return target


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_it_is_locked_until_somebody_gives_the_secret(client: Client, box: Container, encrypt: str) -> None:
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    assert (data.encryption, data.unlocked) == (encrypt, False)
    with pytest.raises(FailedPrecondition) as locked:
        data.mount(box, "/data")
    assert locked.value.reason == "VOLUME_LOCKED"
    with pytest.raises(PermissionDenied) as wrong:
        data.mount(box, "/data", secret=SECRET + " ")
    assert wrong.value.reason == "WRONG_SECRET"
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file")
    assert data.refresh().unlocked and [one.path for one in data.attached_to] == [b"/data"]
    data.mount(box, "/again")
    assert says(box, "cat /again/file") == b"kept\n"
    for path in ("/data", "/again"):
        client.volumes.unmount(box, path)
    assert not data.refresh().unlocked
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file") == b"kept\n"


def test_each_filesystem_of_one_is_opened_by_itself_and_of_a_whole_one_all_at_once(
    client: Client, box: Container
) -> None:
    parts = [("one", "ext4", "28M"), ("two", "ext4", "28M")]
    each = client.volumes.create("each", filesystems=parts, encrypt="fs", secret=SECRET)
    each.mount(box, "/one", filesystem="one", secret=SECRET)
    with pytest.raises(FailedPrecondition, match="locked"):
        each.mount(box, "/two", filesystem="two")
    each.mount(box, "/two", filesystem="two", secret=SECRET)
    whole = client.volumes.create("whole", filesystems=parts, encrypt="whole", secret=SECRET)
    whole.mount(box, "/w1", filesystem="one", secret=SECRET)
    whole.mount(box, "/w2", filesystem="two")
    says(box, "touch /one/a /w1/b; test ! -e /two/a; test ! -e /w2/b")
    assert {(one.path, one.filesystem) for one in whole.refresh().attached_to} == {(b"/w1", "one"), (b"/w2", "two")}
    assert each.refresh().key_slots == whole.key_slots == {"one": [0], "two": [0]}


def test_cryptsetup_opens_each_partition_or_the_whole_file(
    client: Client, daemon: RunningDaemon, tmp_path: Path
) -> None:
    parts = [("home", "ext4", "28M"), ("rest", "ext4", "28M")]
    each = client.volumes.create("each", filesystems=parts, encrypt="fs", secret=SECRET)
    with the_file(daemon).open("rb") as file:
        found = read_disk(file.fileno())
    assert [(one.contents.kind, one.contents.label) for one in found if one.contents] == [
        ("luks", "home"),
        ("luks", "rest"),
    ]
    for number in range(2):
        part = part_of(the_file(daemon), number, tmp_path / "part")
        assert cryptsetup_opens(part, SECRET.encode()) and not cryptsetup_opens(part, b"wrong")
    each.delete()
    client.volumes.create("whole", size="48M", encrypt="whole", secret=OTHER)
    assert cryptsetup_opens(the_file(daemon), OTHER) and not cryptsetup_opens(the_file(daemon), OTHER.strip())
    assert b"EFI PART" not in the_file(daemon).read_bytes()


# Of each filesystem, something that is in every one of its kind.
MAGIC = {"ext4": b"lost+found", "btrfs": b"_BHRfS_M", "xfs": b"XAGI"}
SIZES = {"ext4": "48M", "btrfs": "160M", "xfs": "352M"}


def found_in(file: Path, wanted: list[bytes]) -> list[bytes]:
    """What is anywhere in the file; holes are left out."""
    with file.open("rb") as opened:
        region = Region.whole(opened.fileno())
        extents = region.data_extents(0, region.size)
        content = b"".join(os.pread(opened.fileno(), end - begin, begin) for begin, end in extents)
    return [text for text in wanted if text in content]


@pytest.mark.parametrize("fs", MAGIC)
@pytest.mark.parametrize("encrypt", ["", "fs", "whole"])
def test_in_the_file_is_nothing_of_what_is_in_it(
    client: Client, daemon: RunningDaemon, box: Container, fs: str, encrypt: str
) -> None:
    if shutil.which(f"mkfs.{fs}", path="/usr/sbin:/sbin") is None:
        pytest.skip(f"mkfs.{fs} is not installed")
    secret = SECRET if encrypt else None
    data = client.volumes.create("data", fs=fs, size=SIZES[fs], encrypt=encrypt, secret=secret)
    data.mount(box, "/data", secret=secret)
    marks = {what: f"a-mark-for-the-{what}" for what in ("directory", "name", "link", "content", "little")}
    says(
        box,
        f"mkdir /data/{marks['directory']}; cd /data/{marks['directory']}; ln -s {marks['link']} link; sync\n"
        f"yes {marks['content']} | head -c 2000000 >{marks['name']}; echo {marks['little']} >little; sync",
    )
    assert box.run(["grep", "-q", marks["content"], f"/data/{marks['directory']}/{marks['name']}"]).exit_code == 0
    wanted = [MAGIC[fs], *(mark.encode() for mark in marks.values())]
    if not encrypt:
        client.volumes.unmount(box, "/data")
        assert found_in(the_file(daemon), wanted) == wanted
        return
    assert found_in(the_file(daemon), wanted) == []
    data.lock(force=True)
    wanted += [SECRET.encode(), *([b"EFI PART"] if encrypt == "whole" else [])]
    assert found_in(the_file(daemon), wanted) == []


def test_locked_means_no_mount_no_device_no_process(client: Client, daemon: RunningDaemon, box: Container) -> None:
    other = client.create(name="other")
    data = client.volumes.create("data", size="48M", encrypt="whole", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    data.mount(other, "/data", read_only=True)
    with other.exec(["sh", "-c", "exec 5</data; echo ready; exec sleep 1000"], stdin=False) as process:
        next(iter(process))
        with pytest.raises(FailedPrecondition) as used:
            data.lock()
        assert all(one.id in str(used.value) for one in (box, other)) and data.refresh().unlocked
        wait_until(lambda: len(volume_processes(daemon)) == PROCESSES, "it is open")
        data.lock(force=True)
        assert process.wait().signal == signal.SIGKILL
    assert volume_processes(daemon) == []
    for container in (box, other):
        assert b"/data" not in says(container, "cat /proc/mounts")
    assert not data.refresh().unlocked and not data.attached_to
    with pytest.raises(FailedPrecondition, match="locked"):
        data.mount(box, "/data")
    data.lock()


def test_what_is_not_encrypted_has_neither_lock_nor_keys(client: Client) -> None:
    data = client.volumes.create("data", size="16M")
    for attempt in (data.lock, lambda: data.add_key(SECRET, OTHER)):
        with pytest.raises(FailedPrecondition) as refused:
            attempt()
        assert refused.value.reason == "NOT_ENCRYPTED"
    with pytest.raises(InvalidArgument, match="secret"):
        client.volumes.create("more", size="16M", secret=SECRET)
    with pytest.raises(InvalidArgument, match="secret"):
        client.volumes.create("more", size="48M", encrypt="fs")


def test_keys_are_added_changed_and_removed_while_it_is_mounted_or_not(client: Client, box: Container) -> None:
    parts = [("one", "ext4", "28M"), ("two", "ext4", "28M")]
    data = client.volumes.create("data", filesystems=parts, encrypt="fs", secret=SECRET)
    data.mount(box, "/data", filesystem="one", secret=SECRET)
    says(box, "echo kept >/data/file")
    with pytest.raises(PermissionDenied):
        data.add_key("wrong", OTHER)
    assert data.add_key(SECRET, OTHER).key_slots == {"one": [0, 1], "two": [0, 1]}
    assert data.change_key(OTHER, "third").key_slots == {"one": [0, 2], "two": [0, 2]}
    data.lock(force=True)
    assert data.remove_key(SECRET).key_slots == {"one": [2], "two": [2]}
    with pytest.raises(FailedPrecondition) as last:
        data.remove_key("third")
    assert last.value.reason == "LAST_KEY"
    with pytest.raises(NotFound) as missing:
        data.remove_key("third", slot=7)
    assert missing.value.reason == "KEY_SLOT_NOT_FOUND"
    for gone in (SECRET, OTHER):
        with pytest.raises(PermissionDenied):
            data.mount(box, "/data", filesystem="two", secret=gone)
    data.mount(box, "/data", filesystem="one", secret="third")
    assert says(box, "cat /data/file") == b"kept\n"


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_it_grows_with_its_secret(client: Client, box: Container, encrypt: str) -> None:
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file")
    data.lock(force=True)
    with pytest.raises(FailedPrecondition, match="locked"):
        data.grow("96M")
    with pytest.raises(PermissionDenied):
        data.grow("96M", secret="wrong")
    assert data.refresh().size == 48 << 20
    assert (
        data.grow("96M", secret=SECRET).filesystems[0].size_bytes
        == (96 << 20) - {"fs": 2, "whole": 18}[encrypt] * 2**20
    )
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file") == b"kept\n"
    blocks, size = map(int, says(box, "stat -f -c '%b %S' /data").split())
    assert blocks * size > 60 << 20


@pytest.mark.parametrize(("fstype", "size", "larger"), [("btrfs", "160M", "288M"), ("xfs", "352M", "384M")])
def test_others_than_ext4_are_encrypted_as_well(
    client: Client, daemon: RunningDaemon, box: Container, fstype: str, size: str, larger: str
) -> None:
    if shutil.which(f"mkfs.{fstype}", path="/usr/sbin:/sbin") is None:
        pytest.skip(f"mkfs.{fstype} is not installed")
    data = client.volumes.create("data", fs=fstype, size=size, encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "yes a-mark-of-some-length | head -c 3000000 >/data/file; sync")
    digest = says(box, f"grep -q '/data {fstype} ' /proc/mounts; sha256sum /data/file")
    data.lock(force=True)
    assert b"a-mark-of-some-length" not in the_file(daemon).read_bytes()
    data.grow(larger, secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "sha256sum /data/file") == digest


def test_ext4_writes_nothing_in_the_background_where_there_are_no_holes(client: Client, box: Container) -> None:
    client.volumes.create("plain", size="64M").mount(box, "/plain")
    client.volumes.create("data", size="80M", encrypt="fs", secret=SECRET).mount(box, "/data", secret=SECRET)
    lines = [line.split() for line in says(box, "cat /proc/mounts").decode().splitlines()]
    device = {point: Path(source).name for source, point, *_ in lines}
    options = {point: Path(f"/proc/fs/ext4/{device[point]}/options").read_text() for point in ("/plain", "/data")}
    written = {point: "init_itable" in text.split() or "init_itable=" in text for point, text in options.items()}
    assert written == {"/plain": True, "/data": False}


def test_a_container_locks_and_opens_its_own(client: Client, box: Container) -> None:
    script = f"""
data = client.volumes.create("own", size="48M", encrypt="fs", secret={SECRET!r})
data.mount(".", "/own", secret={SECRET!r})
unlocked = data.refresh().unlocked
data.change_key({SECRET!r}, "other")
data.lock(force=True)
try:
    data.mount(".", "/own", secret={SECRET!r})
    refused = ""
except Exception as error:
    refused = error.reason
answer = [unlocked, data.refresh().unlocked, refused]
"""
    assert script_inside(box, script) == [True, False, "WRONG_SECRET"]


def test_no_secret_is_written_down_anywhere(client: Client, daemon: RunningDaemon, box: Container) -> None:
    secrets = [f"written-nowhere-{number}" for number in range(4)]
    data = client.volumes.create("data", size="48M", encrypt="fs", secret=secrets[0])
    data.mount(box, "/data", secret=secrets[0])
    wait_until(lambda: len(volume_processes(daemon)) == PROCESSES, "it is open")
    for pid in volume_processes(daemon):
        assert all(b"nowhere" not in Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    data.add_key(secrets[0], secrets[1])
    for attempt in (partial(data.add_key, secrets[2], secrets[3]), partial(data.remove_key, secrets[3])):
        with pytest.raises(PermissionDenied):
            attempt()
    with pytest.raises(InvalidArgument):
        client.volumes.create("B@D", size="48M", encrypt="fs", secret=secrets[3])
    data.lock(force=True)
    with sqlite3.connect(daemon.state_dir / "sysproc.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in (path for path in daemon.directory.rglob("*") if path.is_file()):
        assert b"written-nowhere" not in path.read_bytes(), path


def test_few_work_out_keys_at_a_time_whoever_asks(
    client: Client, sysproc: Sysproc, daemon: RunningDaemon, box: Container
) -> None:
    for number in range(5):
        client.volumes.create(f"v{number}", size="48M", encrypt="fs", secret=SECRET)
    with ThreadPoolExecutor(5) as threads:
        tries = [
            threads.submit(sysproc, "mount", "box", f"v{number}", "/data", "--key-file", "-", input=b"wrong")
            for number in range(5)
        ]
        most = 0
        while not all(one.done() for one in tries):
            most = max(most, len(volume_processes(daemon)))
    assert all(b"opens none" in one.result().stderr for one in tries)
    assert 0 < most <= AT_A_TIME


# -- what dies


def test_what_is_open_outlives_daemon_and_launcher(client: Client, daemon: RunningDaemon, box: Container) -> None:
    data = client.volumes.create("data", size="48M", encrypt="whole", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file")
    wait_until(lambda: len(volume_processes(daemon)) == PROCESSES, "it is open")
    before = volume_processes(daemon)
    daemon.kill_launcher()
    daemon.restart()
    assert volume_processes(daemon) == before
    assert says(box, "cat /data/file; echo more >>/data/file; sync") == b"kept\n"
    assert data.refresh().unlocked and [one.path for one in data.attached_to] == [b"/data"]
    data.mount(box, "/again")
    data.lock(force=True)
    assert volume_processes(daemon) == []
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file") == b"kept\nmore\n"


# -- the command


def test_the_command_creates_mounts_locks_and_changes_keys(sysproc: Sysproc, box: Container, tmp_path: Path) -> None:
    text, raw = tmp_path / "passphrase", tmp_path / "key"
    text.write_text("first\n")
    raw.write_bytes(b"\x00raw\n")
    make = ("volume", "create", "safe", "--size", "48M", "--encrypt", "fs", "-o", "json")
    assert json.loads(sysproc(*make, "--passphrase-file", "-", input=b"first\n").stdout)["encrypted"] is True
    assert b"encrypted, and locked" in sysproc("mount", "box", "safe", "/safe").stderr
    assert sysproc("mount", "box", "safe", "/safe", "--passphrase-file", str(text)).returncode == 0
    (listed,) = json.loads(sysproc("volume", "list", "-o", "json").stdout)
    assert (listed["encrypted"], listed["unlocked"], listed["encryption"]) == (True, True, "fs")
    refused = sysproc("volume", "lock", "safe")
    assert (refused.returncode, b"/safe" in refused.stderr) == (1, True)
    assert sysproc("volume", "lock", "safe", "--force").returncode == 0
    keys = ("volume", "passwd", "safe", "--passphrase-file", str(text))
    added = sysproc(*keys, "--add", "--new-key-file", str(raw), "-o", "json")
    assert json.loads(added.stdout)["key_slots"] == {"data": [0, 1]}
    assert sysproc(*keys, "--remove").returncode == 0
    assert sysproc("mount", "box", "safe", "/safe", "--key-file", "-", input=raw.read_bytes()).returncode == 0
    shown = sysproc("volume", "inspect", "safe").stdout.decode()
    assert "KEY SLOTS" in shown and "unlocked     yes" in shown
    assert sysproc("umount", "box", "/safe").returncode == 0


def test_on_a_terminal_it_is_asked_for_unseen_and_a_new_one_twice(
    sysproc: Sysproc, daemon: RunningDaemon, box: Container
) -> None:
    create = ("volume", "create", "safe", "--size", "48M", "--encrypt", "fs")
    code, shown = at_a_terminal(daemon, create, ["typed", "typos", "typed", "typed"])
    assert code == 0 and b"typed" not in shown and shown.endswith(b"safe\r\n")
    code, shown = at_a_terminal(daemon, ("mount", "box", "safe", "/safe"), ["typed"])
    assert code == 0 and b"typed" not in shown
    assert sysproc("volume", "lock", "safe", "--force").returncode == 0


def at_a_terminal(daemon: RunningDaemon, arguments: tuple[str, ...], answers: list[str]) -> tuple[int, bytes]:
    """What the command says to a person who answers each of its questions."""
    ours, theirs = pty.openpty()
    sysproc = str(Path(sys.executable).with_name("sysproc"))
    call = [sys.executable, "-c", OWN_TERMINAL, sysproc, "--endpoint", daemon.endpoint, *arguments]
    with subprocess.Popen(call, stdin=theirs, stdout=theirs, stderr=theirs) as command:
        os.close(theirs)
        shown = b""
        for answer in answers:
            shown += os.read(ours, 4096)
            while not shown.endswith(b": "):
                shown += os.read(ours, 4096)
            os.write(ours, f"{answer}\n".encode())
        with suppress(OSError):  # EIO: nobody has the other end any more
            while more := os.read(ours, 4096):
                shown += more
        code = command.wait()
    os.close(ours)
    return code, shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "a", "--size", "48M", "--encrypt", "fs"), b"--passphrase-file"),
        (("create", "a", "--size", "48M", "--passphrase-file", "-"), b"--encrypt"),
        (("create", "a", "--size", "48M", "--encrypt", "fs", "--passphrase-file", "/nowhere"), b"No such file"),
        (("create", "a", "--size", "48M", "--encrypt", "fs", "--passphrase-file", "-", "--key-file", "-"), b"at once"),
        (("create", "a", "--size", "16M", "--encrypt", "fs", "--passphrase-file", "-"), b"ext4 needs"),
        (("passwd", "a", "--add", "--remove"), b"at once"),
        (("passwd", "a", "--slot", "1"), b"--remove"),
        (("passwd", "a", "--passphrase-file", "-", "--new-key-file", "-"), b"standard input"),
        (("lock", "a"), b"no volume named a"),
    ],
)
def test_what_makes_no_sense_is_said(sysproc: Sysproc, arguments: tuple[str, ...], words: bytes) -> None:
    refused = sysproc("volume", *arguments, input=b"x")
    assert refused.returncode != 0
    assert words in refused.stderr and b"Traceback" not in refused.stderr
