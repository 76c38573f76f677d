"""What divides cgroups by itself, inside a delegated container: systemd, as PID 1 of a PID namespace made inside.

Its program and libraries are this machine's: the container gets as much of it as they need.
"""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.archives import Archive
from tests.e2e.test_delegation import needs_version_2

pytestmark = [needs_version_2, pytest.mark.vm]

SYSTEMD, UNSHARE = "/lib/systemd/systemd", "/usr/bin/unshare"

# Whoever is there, this shell too, goes into a group of its own, so that there may be others beside it.
DIVIDE = """
set -e
cd /sys/fs/cgroup
mkdir init.scope machine
for pid in $(cat cgroup.procs); do echo $pid > init.scope/cgroup.procs 2>/dev/null || :; done
echo '+memory +pids' > cgroup.subtree_control
"""
# PID 1 of its namespace enters a group (0 is whoever writes), and sees that as the whole tree in a cgroup namespace of
# its own. What has forked it stays behind: it could not be moved from there, and would keep controllers from being
# enabled.
BOOT = f"""
{DIVIDE}
exec {UNSHARE} --mount --pid --fork --mount-proc sh -c '
    echo 0 > machine/cgroup.procs
    exec {UNSHARE} --cgroup sh -c "
        mount -t cgroup2 cgroup2 /mnt && mount -o move /mnt /sys/fs/cgroup
        exec {SYSTEMD} --log-target=console --show-status=0
    "
'
"""
UNITS = {
    "default.target": "[Unit]\nDefaultDependencies=no\nWants=asked.service\n",
    "asked.service": "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\nFailureAction=exit-force\n"
    "[Service]\nType=oneshot\nTasksMax=7\nMemoryMax=32M\n"
    "ExecStart=/bin/sh -c 'cd /sys/fs/cgroup/system.slice/asked.service; "
    "cat /proc/self/cgroup pids.max memory.max >/result'\n",
}


def libraries(program: str) -> Iterator[str]:
    """What the dynamic linker loads for it, and the linker itself."""
    for line in subprocess.check_output(["ldd", program], text=True).splitlines():
        words = line.replace("=>", " ").split()
        yield from (word for word in words[:2] if word.startswith("/"))


def with_program(archive: Archive, program: str, added: set[str]) -> None:
    """Add a program of this machine, with what it needs to run."""
    if not Path(program).exists():
        pytest.skip(f"not installed: {program}")
    for path in {program, *libraries(program)} - added:
        added.add(path)
        archive.add(path.lstrip("/"), Path(path).read_bytes(), mode=0o755)


@pytest.fixture
def box(client: Client, archive: Archive) -> Iterator[Container]:
    """A delegated container whose image has the programs needed, and busybox."""
    archive.add("bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes(), mode=0o755)
    for applet in ("sh", "cat", "mkdir", "mount", "ps", "wc"):
        archive.add(f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
    added: set[str] = set()
    for program in (SYSTEMD, UNSHARE):
        with_program(archive, program, added)
    for name, text in UNITS.items():
        archive.add(f"etc/systemd/system/{name}", text.encode())
    archive.add("mnt", type=tarfile.DIRTYPE, mode=0o755)
    client.images.import_("systemd", io.BytesIO(archive.bytes()))
    yield client.create(image="systemd", delegate=True, pids=128, size="512M")
    for one in client.list():
        one.destroy()
    client.images.delete("systemd")


def test_systemd_runs_a_service_with_limits(box: Container) -> None:
    done = box.run(["sh", "-c", BOOT], timeout=300)
    result = box.run(["cat", "/result"])
    assert result.stdout.split() == [b"0::/system.slice/asked.service", b"7", b"33554432"], done
