"""The process of an open volume: what it may, what others see of it, when it ends."""

import errno
import os
import resource
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from sysproc.errors import FailedPrecondition, InvalidArgument
from sysproc.linux.capabilities import CAP_IPC_LOCK
from sysproc.storage.decrypted.opening import spawn, start
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume
from tests.kernel.storage.open_volume import (
    CHEAP,
    SECRET,
    decrypted_file,
    disk,
    ended,
    needs_fuse,
    opened,
    pipe_with,
    volume_file,
)
from tests.waiting import is_zombie, wait_until

pytestmark = needs_fuse


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_it_has_no_privileges_but_to_lock_memory(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        seen = status(decrypted.pid)
        tasks = list(Path(f"/proc/{decrypted.pid}/task").iterdir())
        of_threads = {(task / "status").read_text().partition("CapEff:\t")[2].splitlines()[0] for task in tasks}
    assert of_threads == {f"{1 << CAP_IPC_LOCK:016x}"} and len(tasks) > 1
    assert (seen["CapBnd"], seen["CapInh"], seen["NoNewPrivs"], seen["Name"]) == (
        "0" * 16,
        "0" * 16,
        "1",
        "sysproc-volume",
    )


def test_all_its_memory_is_locked_and_never_dumped(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        seen = status(decrypted.pid)
        locked, resident = (int(seen[name].split()[0]) for name in ("VmLck", "VmRSS"))
        assert locked >= resident > 0 and seen["VmSwap"].split()[0] == "0"
        assert resource.prlimit(decrypted.pid, resource.RLIMIT_CORE) == (0, 0)
        # Who is not root cannot look: the files of a process that is not dumpable are root's (proc(5)); nor can
        # anything without CAP_SYS_PTRACE.
        pid = os.fork()
        if pid == 0:
            os._exit(_can_read_memory(decrypted.pid))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _can_read_memory(pid: int) -> int:
    os.setresuid(4711, 4711, 4711)
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except PermissionError:
        return 0
    return 1


def test_no_secret_is_in_its_arguments_environment_or_files(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        proc = Path(f"/proc/{decrypted.pid}")
        told = b"".join((proc / name).read_bytes() for name in ("cmdline", "environ"))
        assert SECRET not in told and b"sysproc.storage.decrypted" in told
        wait_until(
            lambda: targets(decrypted.pid) == {"/dev/fuse", str(tmp_path / "volume")}, "it has let go of the rest"
        )


def targets(pid: int) -> set[str]:
    """What it has open besides the three of every process."""
    fds = (fd for fd in Path(f"/proc/{pid}/fd").iterdir() if int(fd.name) > 2)
    found = set()
    for fd in fds:
        with suppress(FileNotFoundError):
            found.add(os.readlink(fd))
    return found


def test_it_is_in_no_network_and_no_session_of_ours(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        for kind in ("net", "ipc", "uts"):
            assert os.readlink(f"/proc/{decrypted.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
        assert os.getsid(decrypted.pid) == decrypted.pid


def test_no_mount_is_seen_on_the_host(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, disk(region):
        assert " - fuse sysproc" not in Path("/proc/self/mountinfo").read_text()


def test_it_ends_by_itself_with_the_last_use_of_the_file(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        decrypted = opened(region)
        second = os.dup(decrypted.fd)
        os.close(decrypted.fd)
        assert os.pread(second, 16, 0) and not is_zombie(decrypted.pid)
        os.close(second)
        assert ended(decrypted.pid) == 0


def test_signals_that_end_a_session_do_not_end_it(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as decrypted:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            os.kill(decrypted.pid, number)
        assert len(os.pread(decrypted.fd, 4096, 0)) == 4096


def test_a_volume_that_is_open_is_not_opened_again_until_its_process_is_gone(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        first = opened(region)
        with pytest.raises(FailedPrecondition) as refused:
            opened(region)
        assert refused.value.reason == "VOLUME_IN_USE" and not is_zombie(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        assert ended(first.pid) == -signal.SIGKILL
        with decrypted_file(region):
            pass
        with pytest.raises(OSError) as gone:
            os.close(first.fd)
        assert gone.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def test_another_volume_of_the_same_file_may_be_open_at_once(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        second = Region(region.fd, region.offset + region.size, 17 << 20)
        os.ftruncate(region.fd, second.offset + second.size)
        format_volume(second, memoryview(SECRET), cost=CHEAP)
        with decrypted_file(region) as one, decrypted_file(second) as other:
            os.pwrite(one.fd, b"1" * 4096, 0)
            os.pwrite(other.fd, b"2" * 4096, 0)
            assert os.pread(one.fd, 4096, 0) == b"1" * 4096 and os.pread(other.fd, 4096, 0) == b"2" * 4096


def test_a_file_that_is_only_read_has_any_number_of_readers_and_no_writer(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        with decrypted_file(region) as decrypted:
            os.pwrite(decrypted.fd, b"x" * 4096, 0)
        reading = Region(os.open(tmp_path / "volume", os.O_RDONLY | os.O_CLOEXEC), region.offset, region.size)
        with decrypted_file(reading) as one, decrypted_file(reading) as other:
            assert os.pread(one.fd, 4096, 0) == os.pread(other.fd, 4096, 0) == b"x" * 4096
            with pytest.raises(OSError) as refused:
                os.pwrite(one.fd, b"y" * 4096, 0)
            assert refused.value.errno == errno.EBADF
            with pytest.raises(FailedPrecondition):
                opened(region)
        os.close(reading.fd)


@pytest.mark.parametrize("received", [False, True])
def test_whoever_started_it_dies_and_it_ends(tmp_path: Path, received: bool) -> None:
    """Before it has told anything, and between that and the taking of the file."""
    with volume_file(tmp_path / "volume") as region:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        secret = pipe_with(SECRET)
        pid = spawn(region, secret, theirs.fileno())
        os.close(secret)
        theirs.close()
        if received:
            wait_until(lambda: readable(ours), "it has told that the volume is open")
        ours.close()
        ended(pid)
        with decrypted_file(region):
            pass


def readable(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def test_a_key_file_without_end_is_refused(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region:
        endless = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
        with pytest.raises(InvalidArgument):
            start(region, endless)
        os.close(endless)
