"""What processes inside begin with is stated, and is not what service and launcher happen to have."""

import os
import signal
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.compiled import compiled


@pytest.fixture
def box(client: Client) -> Container:
    return client.create()


def inside(box: Container, script: str, user: int = 0) -> str:
    result = box.run(["sh", "-c", script], user=user)
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode()


@pytest.mark.parametrize("which", ["1", "self"], ids=["init", "exec"])
def test_limits_are_stated(box: Container, which: str) -> None:
    lines = inside(box, f"cat /proc/{which}/limits").splitlines()[1:]
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max open files"][0] == "1024"
    assert int(limits["Max open files"][1]) <= 524288
    assert limits["Max core file size"][0] == "0"
    assert limits["Max pending signals"] == ["16384", "16384"]


@pytest.mark.parametrize("which", ["1", "self"], ids=["init", "exec"])
def test_no_signal_that_has_a_name_is_ignored(box: Container, which: str) -> None:
    status = box.run(["cat", f"/proc/{which}/status"]).stdout.decode()
    (line,) = [line for line in status.splitlines() if line.startswith("SigIgn")]
    ignored = int(line.split()[1], 16)
    assert [number for number in signal.valid_signals() if ignored & 1 << (number - 1)] == []


def test_the_oom_killer_is_told_nothing_and_files_are_made_for_all_to_read(box: Container) -> None:
    assert inside(box, "cat /proc/self/oom_score_adj; cat /proc/1/oom_score_adj").split() == ["0", "0"]
    assert inside(box, "umask").strip() == "0022"


def test_other_users_see_what_root_sees_of_sys_and_hosts(box: Container) -> None:
    assert inside(box, "ls /sys/class/net", user=1000).split() == ["lo"]
    assert "localhost" in inside(box, "cat /etc/hosts /etc/hostname", user=1000)
    assert inside(box, "cat /sys/devices/system/cpu/online", user=1000)


def test_a_session_keyring_is_its_own(client: Client, box: Container) -> None:
    other = client.create()
    keys = [inside(one, "cat /proc/keys | wc -l") for one in (box, other)]
    assert all(int(count) <= 4 for count in keys)


def test_counters_of_the_kernel_are_the_containers_own(client: Client, box: Container) -> None:
    """inotify instances are counted by user, and each container has users of its own."""
    program = compiled(Path(__file__).with_name("instances.c"))
    if program is None:
        pytest.skip("no C compiler here")
    most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    other = client.create()
    for one in (box, other):
        put = ["sh", "-c", "cat > /instances && chmod +x /instances"]
        assert one.run(put, input=program.read_bytes()).exit_code == 0
    hog = box.exec(["sh", "-c", "ulimit -n 4096; exec /instances"])
    assert next(iter(hog)).data == b"%d\n" % most
    assert box.run(["/instances"]).stdout == b"0\n", "there is none left for this container"
    assert other.run(["sh", "-c", "ulimit -n 4096; exec /instances"]).stdout == b"%d\n" % most
    hog.stdin.close()
    hog.wait()


def test_no_two_containers_share_the_file_of_their_init(client: Client, box: Container) -> None:
    inodes = {inside(one, "stat -L -c %i /proc/1/exe") for one in (box, client.create())}
    assert len(inodes) == 2


def test_terminals_of_one_container_are_bounded(box: Container) -> None:
    options = inside(box, "grep ' /dev/pts ' /proc/self/mountinfo")
    assert "max=256" in options


def test_nobody_inside_is_a_process_of_the_host(box: Container) -> None:
    assert os.stat("/proc/self/ns/pid").st_ino != int(inside(box, "readlink /proc/self/ns/pid").strip()[5:-1])
