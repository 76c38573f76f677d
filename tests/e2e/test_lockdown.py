"""A container's root tries every remount, every node, every sysctl, and calls that act on the whole host.

The attempts are real calls of a C program (`attack.c`, beside this), which tells the errno of each. What a positive
control needs to work is tried by the same program: where nothing fails, the test would not see that it should.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.compiled import compiled

pytestmark = pytest.mark.vm

# Belongs to the container: its own network, hostname, System V and POSIX IPC (namespaces(7)).
OWN_SYSCTLS = ("/proc/sys/net/", "/proc/sys/fs/mqueue/", "/proc/sys/user/")
OWN_NAMES = (
    *("hostname", "domainname", "msgmax", "msgmnb", "msgmni", "msg_next_id", "sem", "sem_next_id", "shmall"),
    *("shmmax", "shmmni", "shm_next_id", "shm_rmid_forced", "auto_msgmni", "ns_last_pid", "pid_max"),
)
OF_THE_HOST = (
    *("kernel/core_pattern", "kernel/modprobe", "kernel/panic", "kernel/sysrq", "kernel/hotplug"),
    *("vm/overcommit_memory", "vm/drop_caches", "fs/file-max", "fs/suid_dumpable", "fs/protected_symlinks"),
)
REFUSED = (errno.EPERM, errno.EACCES, errno.EROFS)


@dataclass(frozen=True)
class Attempt:
    """One line of the program."""

    what: str
    on: str
    errno: int

    def __str__(self) -> str:
        return f"{self.what} {self.on}: {errno.errorcode.get(self.errno, 'let')}"


Attack = Callable[..., list[Attempt]]


@pytest.fixture(scope="module")
def program() -> bytes:
    """The compiled program; static, since the image has no libc."""
    program = compiled(Path(__file__).with_name("attack.c"))
    if program is None:
        pytest.skip("no C compiler here")
    return program.read_bytes()


@pytest.fixture
def box(client: Client, program: bytes) -> Container:
    """A container with the program in it."""
    box = client.create(hostname="cage")
    assert box.run(["sh", "-c", "cat > /attack && chmod +x /attack"], input=program).exit_code == 0
    return box


@pytest.fixture
def attack(box: Container) -> Attack:
    """Run the program; what it tells."""

    def run(*words: str) -> list[Attempt]:
        result = box.run(["/attack", *words])
        assert result.exit_code == 0, (result.exit_code, result.signal, result.stderr, result.failure)
        lines = (line.split("\t") for line in result.stdout.decode().splitlines())
        return [Attempt(what, on, int(number)) for what, on, number in lines]

    return run


def mount_flags(box: Container) -> list[tuple[str, str]]:
    """Target and flags of each mount."""
    lines = box.run(["cat", "/proc/self/mountinfo"]).stdout.decode().splitlines()
    return [(line.split()[4], line.split()[5]) for line in lines]


@pytest.mark.parametrize("where", [(), ("nested",)], ids=["as root", "as root of a namespace inside"])
def test_no_flag_of_any_mount_can_be_cleared_and_none_unmounted(
    box: Container, attack: Attack, where: tuple[str, ...]
) -> None:
    before = mount_flags(box)
    attempts = attack(*where, "remount")
    assert mount_flags(box) == before
    flags = [one for one in attempts if one.what in ("ro", "nosuid", "nodev", "noexec", "superblock", "all")]
    assert [str(one) for one in flags if one.errno != errno.EPERM] == []
    # EINVAL: it is locked together with what it is mounted on (umount2(2)).
    unmounts = [one for one in attempts if one.what == "umount"]
    assert [str(one) for one in unmounts if one.errno not in (errno.EINVAL, errno.EPERM)] == []
    assert {one.on for one in flags} == {target for target, _ in before}


def test_every_mount_of_a_container_is_nodev_or_holds_nodes_of_the_host_only(box: Container) -> None:
    with_devices = {target for target, flags in mount_flags(box) if "nodev" not in flags.split(",")}
    assert with_devices == {"/dev", "/dev/pts"}


def test_no_device_node_can_be_made_anywhere(box: Container, attack: Attack) -> None:
    attempts = attack("nodes", "/", "/tmp", "/dev", "/dev/shm", "/run", "/run/lock")
    assert len(attempts) == 54
    assert [str(one) for one in attempts if one.errno != errno.EPERM] == []
    assert box.run(["mknod", "/tmp/fifo", "p"]).exit_code == 0


def test_no_sysctl_of_the_host_can_be_written(attack: Attack) -> None:
    attempts = attack("sysctls")
    let = [one.on for one in attempts if one.errno == 0]
    strangers = [path for path in let if not path.startswith(OWN_SYSCTLS) and path.rpartition("/")[2] not in OWN_NAMES]
    assert strangers == []
    assert {one.errno for one in attempts if one.errno} <= set(REFUSED)
    there = {one.on for one in attempts}
    assert {f"/proc/sys/{name}" for name in OF_THE_HOST if os.path.exists(f"/proc/sys/{name}")} <= there


def test_its_own_sysctls_can_be_written(box: Container) -> None:
    script = "echo 123 > /proc/sys/kernel/msgmni && echo 1 > /proc/sys/net/ipv4/ip_forward && echo ok"
    assert box.run(["sh", "-c", script]).stdout == b"ok\n"


@pytest.mark.parametrize("where", [(), ("nested",)], ids=["as root", "as root of a namespace inside"])
def test_calls_on_the_whole_host_are_refused(attack: Attack, where: tuple[str, ...]) -> None:
    attempts = attack(*where, "host")
    refused = (*REFUSED, errno.ENOSYS)
    # reboot(2) would end the caller's own PID namespace only; this command is none that it knows there.
    assert [str(one) for one in attempts if one.errno not in refused and str(one) != "reboot -: EINVAL"] == []


@pytest.mark.parametrize(
    "path",
    [
        *("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity", "/proc/timer_list"),
        *("/sys/devices/system/cpu/cpu0/online", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"),
    ],
)
def test_nothing_of_the_host_can_be_written(box: Container, path: str) -> None:
    assert box.run(["sh", "-c", f"echo 1 > {path}"]).exit_code != 0


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/sys/block", "/sys/kernel"])
def test_nothing_of_the_host_can_be_read(box: Container, path: str) -> None:
    assert box.run(["sh", "-c", f"head -c 1 {path}"]).exit_code != 0


def test_the_host_is_out_of_sight(box: Container) -> None:
    seen = box.run(["sh", "-c", "ls -d /proc/[0-9]* | wc -l; cat /proc/self/uid_map; ls /../../.."]).stdout.decode()
    count, uid_map, *root = seen.splitlines()
    assert int(count) <= 6
    assert uid_map.split()[0::2] == ["0", "65536"] and int(uid_map.split()[1]) >= 65536
    assert "attack" in root
