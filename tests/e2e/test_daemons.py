"""Daemons themselves: two on one host, two on one directory, an orderly end, what they say of their settings."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from sysproc.linux.mounts import MNT_DETACH, mount, umount2
from sysproc_client import Client
from tests.archives import Archive
from tests.e2e.daemon import DaemonFailed, RunningDaemon
from tests.waiting import wait_until

SYSPROCD = str(Path(sys.executable).with_name("sysprocd"))


@pytest.fixture
def other(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """Another one with directories of its own; claims of uid ranges are the host's, so they are shared."""
    beside = RunningDaemon()
    beside.uid_claims = daemon.uid_claims
    with beside:
        yield beside


def base_of(daemon: RunningDaemon) -> int:
    """The first uid of a new container on the host."""
    with Client(daemon.endpoint) as client:
        init = next(one.host_pid for one in client.create().ps() if one.pid == 1)
    return int(Path(f"/proc/{init}/uid_map").read_text().split()[1])


def test_two_on_one_host_never_meet(daemon: RunningDaemon, other: RunningDaemon, client: Client) -> None:
    bases = {base_of(one) for one in (daemon, other) for _ in range(3)}
    assert len(bases) == 6
    with Client(other.endpoint) as beside:
        mine, theirs = ({box.id for box in one.list()} for one in (client, beside))
        assert (len(mine), len(theirs), mine & theirs) == (3, 3, set())
        for box in beside.list():
            box.destroy()
    assert {box.id for box in client.list()} == mine


def test_a_second_one_on_the_same_directory_is_refused_and_harms_nothing(daemon: RunningDaemon, client: Client) -> None:
    box = client.create()
    second = RunningDaemon()
    second.state_dir = daemon.state_dir
    with pytest.raises(DaemonFailed, match=str(daemon.pid)), second:
        pass
    assert box.run(["true"]).exit_code == 0


def test_a_second_one_at_the_same_socket_is_refused(daemon: RunningDaemon, client: Client) -> None:
    second = RunningDaemon()
    second.runtime_dir = daemon.runtime_dir
    with pytest.raises(DaemonFailed), second:
        pass
    assert client.list() == []


def test_an_orderly_end_leaves_containers_and_processes_running(daemon: RunningDaemon, client: Client) -> None:
    box = client.create()
    process = box.exec(["sh", "-c", "read go; exit 11"], exec_id="on", stdin=True)
    process.stdin.write(b"")
    wait = iter(process)
    wait_until(lambda: (box.exec(["true"], stdin=False).wait(), True)[1], "it answers")
    del wait
    assert daemon.terminate() == 0
    daemon.start()
    with Client(daemon.endpoint) as again:
        assert [one.state for one in again.list()] == ["running"]
        assert again.get(box.id).run(["echo", "on"]).stdout == b"on\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--uid-range", "abc"], "uid"),
        (["--listen", "tcp://0.0.0.0:0"], "listen"),
        (["--listen", "tcp://127.0.0.1:1", "--tls-dir", "/no/such"], "sysproc cert init /no/such"),
        (["--spool-bytes", "-1"], "spool"),
        (["--nonsense"], "nonsense"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml"),
    ],
    ids=" ".join,
)
def test_settings_that_make_no_sense_are_named(arguments: list[str], words: str) -> None:
    done = subprocess.run([SYSPROCD, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_settings_say_where_each_came_from(tmp_path: Path) -> None:
    file = tmp_path / "sysproc.toml"
    file.write_text('group = "adm"\nlog_level = "debug"\n')
    environment = {"SYSPROC_LOG_LEVEL": "error", "PATH": "/usr/bin"}
    command = [SYSPROCD, "--config", str(file), "--state-dir", "/srv/x", "--print-settings"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True).stdout
    values = {line.split()[0]: line.split(None, 2)[1:] for line in shown.splitlines() if len(line.split()) > 2}
    assert values["state_dir"][0] == "/srv/x" and "--state-dir" in values["state_dir"][1]
    assert values["log_level"][0] == "error" and "SYSPROC_LOG_LEVEL" in values["log_level"][1]
    assert values["group"][0] == "adm" and "sysproc.toml" in values["group"][1]
    assert values["runtime_dir"][1] == "default"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of the host's, mounted before a daemon starts."""
    mount("tmpfs", tmp_path, fstype="tmpfs")
    yield tmp_path
    if os.path.ismount(tmp_path):
        umount2(tmp_path, MNT_DETACH)


def holders(daemon: RunningDaemon, disk: Path) -> list[int]:
    """The processes of the daemon in whose mount namespace it is mounted, or whose current directory is there."""
    launcher = psutil.Process(daemon.launcher_pid)
    pids = [daemon.pid, *(one.pid for one in (launcher, *launcher.children(recursive=True)))]
    return [pid for pid in pids if holds(pid, disk)]


def holds(pid: int, disk: Path) -> bool:
    """Whether this process does; one that has ended does not."""
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        return f" {disk} " in mounts or Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(disk)
    except OSError:
        return False


def test_a_disk_of_the_host_can_be_unmounted_whenever_it_was_mounted(disk: Path) -> None:
    with RunningDaemon() as running, Client(running.endpoint) as client:
        box = client.create()
        process = box.exec(["sleep", "1000"], stdin=False)
        assert holders(running, disk) != []
        umount2(disk)
        assert holders(running, disk) == []
        process.signal(9)
        box.destroy()


def test_a_long_import_keeps_no_disk_of_the_host(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    marker = tmp_path_factory.mktemp("marker") / "unpacks"
    archive = Archive()
    archive.add("file", b"data")
    with RunningDaemon() as running, Client(running.endpoint) as client:
        running.kill_launcher()
        running.restart(environment={"SYSPROC_FAILPOINTS": f"jobs.unpack.after_go=block({marker})"})
        with ThreadPoolExecutor() as threads:
            importing = threads.submit(client.images.import_, "long", io.BytesIO(archive.bytes()))
            try:
                wait_until(marker.exists, "it unpacks")
                umount2(disk)
                wait_until(lambda: holders(running, disk) == [], "nobody holds the disk")
                assert not importing.done()
            finally:
                marker.unlink()
            importing.result()
        client.images.delete("long")


@pytest.mark.parametrize("namespace", ["userns_ino", "mntns_ino"])
def test_a_process_in_other_namespaces_than_recorded_is_not_taken_for_the_container(
    daemon: RunningDaemon, client: Client, namespace: str
) -> None:
    right, wrong = client.create(), client.create()
    daemon.kill9()
    with closing(sqlite3.connect(daemon.state_dir / "sysproc.db")) as database, database:
        change = f"UPDATE containers SET {namespace} = {namespace} + 1 WHERE id = ?"
        assert database.execute(change, (wrong.id,)).rowcount == 1
    daemon.start()
    with Client(daemon.endpoint) as again:
        assert (again.get(right.id).state, again.get(wrong.id).state) == ("running", "stopped")
        again.get(wrong.id).start()
        assert again.get(wrong.id).run(["true"]).exit_code == 0


@pytest.fixture
def blocking(daemon: RunningDaemon, tmp_path: Path) -> Callable[[str], Path]:
    """Restart the daemon so that it stops at this place, where the file appears; goes on when that is removed."""

    def restart(place: str) -> Path:
        marker = tmp_path / "marker"
        daemon.kill_launcher()
        daemon.restart(environment={"SYSPROC_FAILPOINTS": f"{place}=1*block({marker})"})
        return marker

    return restart


def test_what_no_keeper_has_yet_is_not_said_to_run(daemon: RunningDaemon, blocking: Callable[[str], Path]) -> None:
    marker = blocking("build.after_report")
    with ThreadPoolExecutor() as threads, Client(daemon.endpoint, patience=0) as client:
        creating = threads.submit(client.create)
        wait_until(marker.exists, "it is built")
        assert [one.state for one in client.list()] == ["creating"]
        daemon.kill9()
        assert creating.exception() is not None
    daemon.start(environment={"SYSPROC_FAILPOINTS": ""})
    marker.unlink()
    with Client(daemon.endpoint) as again:
        assert again.list() == []


def test_what_a_keeper_has_stays_though_the_launcher_sees_the_daemon_go_first(
    daemon: RunningDaemon, blocking: Callable[[str], Path]
) -> None:
    marker = blocking("build.after_init")
    with ThreadPoolExecutor() as threads, Client(daemon.endpoint) as client:
        creating = threads.submit(client.create)
        wait_until(marker.exists, "it is built")
        launcher = daemon.launcher_pid
        os.kill(launcher, signal.SIGSTOP)
        marker.unlink()
        box = creating.result()
    daemon.kill9()
    os.kill(launcher, signal.SIGCONT)
    daemon.start(environment={"SYSPROC_FAILPOINTS": ""})
    with Client(daemon.endpoint) as again:
        assert again.get(box.id).state == "running"
