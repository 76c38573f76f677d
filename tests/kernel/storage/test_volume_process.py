"""The process of an open volume: what it may, what others see of it, when it ends."""

import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from sysproc.linux.capabilities import CAP_IPC_LOCK
from tests.kernel.storage.open_volume import SECRET, decrypted_file, disk, ended, needs_fuse, opened, volume_file
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


def test_it_is_opened_by_two_processes_at_once_only_by_who_asks_for_that(tmp_path: Path) -> None:
    """Each start is a process of its own: that a volume is opened once is kept by whoever starts it."""
    with volume_file(tmp_path / "volume") as region, decrypted_file(region) as one, decrypted_file(region) as other:
        assert one.pid != other.pid
