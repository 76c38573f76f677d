"""Filesystems of volumes in small containers: what one may do with them there, where they go, and that they go away."""

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc.isolation.launcher_client import ChildFailed
from sysproc.isolation.volumes.devices import device_of
from sysproc.isolation.volumes.holders import holders
from sysproc.linux.files import f_ofd_setlk
from tests.kernel.isolation.volumes.conftest import OFFSET, SIZE, Box, Mounting
from tests.waiting import wait_until

MakeBox = Callable[[], Box]
PROGRAM = Path(__file__).with_name("attempt.c")


def devices(volume: Path) -> list[str]:
    """The loop devices that have this file."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if file.read_text().strip() == str(volume):
                found.append(file.parts[3])
        except OSError:
            continue
    return found


@contextmanager
def running(box: Box, script: str) -> Iterator["subprocess.Popen[str]"]:
    """A script inside that prints one line and goes on."""
    with subprocess.Popen(box.command(script), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        try:
            yield process
        finally:
            os.kill(pid_below(process), signal.SIGKILL)


def pid_below(process: "subprocess.Popen[str]") -> int:
    """nsenter forks for the PID namespace: the shell is its child."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


async def test_its_root_owns_what_root_owns_in_the_volume(mounting: Mounting, box: Box) -> None:
    mounted = await mounting.attach(box, "/srv/app/data")
    assert box.says("stat -c %u:%g /srv/app/data; touch /srv/app/data/new; chown 5:6 /srv/app/data/new") == "0:0\n"
    assert await mounting.detach(box, mounted) == 1
    assert box.says("ls /srv/app/data; grep -c /srv/app/data /proc/mounts || true") == "0\n"
    wait_until(lambda: devices(mounting.volume) == [], "the loop device is gone")
    await mounting.attach(box, "/again")
    assert box.says("stat -c %u:%g /again/new") == "5:6\n"


@pytest.mark.parametrize("flags", ["rw", "dev", "suid", "exec"])
async def test_no_flag_can_be_lifted(mounting: Mounting, box: Box, flags: str) -> None:
    await mounting.attach(box, read_only=True, noexec=True)
    refused = box.run(f"mount -o remount,bind,{flags} /data")
    assert refused.returncode != 0
    assert "ermission denied" in refused.stderr or "not permitted" in refused.stderr
    options = box.says("grep ' /data ' /proc/mounts").split()[3].split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)


async def test_set_uid_programs_count_only_where_it_was_asked_for(mounting: Mounting, box: Box) -> None:
    await mounting.attach(box)
    await mounting.attach(box, "/with", suid=True)
    box.put(PROGRAM, "/data/attempt")
    box.says("chmod 755 /data; chmod 4755 /data/attempt")
    assert box.says("/data/attempt uid", uid=1000) == "1000\n"
    assert box.says("/with/attempt uid", uid=1000) == "0\n"


async def test_without_ids_a_volume_can_be_read_and_nothing_else(mounting: Mounting, make_box: MakeBox) -> None:
    owner, reader = make_box(), make_box()
    await mounting.attach(owner)
    owner.says("cd /data; echo v1 >all; chmod 644 all; echo no >secret; chmod 600 secret; mkfifo fifo; chmod 666 fifo")
    owner.put(PROGRAM, "/data/attempt")
    owner.says("cd /data; chmod 4755 attempt; mkdir open; chmod 777 open; echo w >w; chmod 666 w")
    await mounting.attach(reader, read_only=True, suid=True, own_ids=False)
    assert reader.says("cat /data/all; /data/attempt uid", uid=1000) == "v1\n1000\n"
    owner.says("echo v2 >/data/all")
    assert reader.says("cat /data/all") == "v2\n", "an upgrade is seen"
    for attempt in ("cat /data/secret", "echo x >/data/w", "echo x >/data/fifo", "touch /data/open/x", "rm -f /data/w"):
        assert reader.run(f"timeout 5 sh -c '{attempt}'").returncode not in (0, 124, 143), attempt
    with running(owner, "exec /data/attempt listen /data/sock"):
        assert owner.run("/data/attempt connect /data/sock").returncode == 0
        assert reader.run("/data/attempt connect /data/sock").returncode == 1


async def test_two_containers_see_one_filesystem(mounting: Mounting, make_box: MakeBox) -> None:
    one, other = make_box(), make_box()
    first, second = await mounting.attach(one), await mounting.attach(other, "/mnt")
    assert first["device"] == second["device"]
    assert len(devices(mounting.volume)) == 1
    one.says("echo hello >/data/x")
    assert other.says("cat /mnt/x; stat -c %u /mnt/x") == "hello\n0\n"
    one.process.communicate()
    assert other.says("cat /mnt/x") == "hello\n"
    other.process.communicate()
    wait_until(lambda: devices(mounting.volume) == [], "the loop device goes with the last container")


@pytest.mark.parametrize(
    ("prepare", "path", "number"),
    [
        ("ln -s /proc/1/root /tmp/link", "/tmp/link/x", errno.ELOOP),
        ("ln -s /proc/self/cwd /tmp/link", "/tmp/link", errno.EEXIST),
        ("touch /tmp/file", "/tmp/file", errno.ENOTDIR),
        ("ln -s nowhere /tmp/link", "/tmp/link", errno.EEXIST),
        (":", "/", errno.EBUSY),
        (":", "//", errno.EBUSY),
        (":", "/" + "x" * 300, errno.ENAMETOOLONG),
    ],
)
async def test_where_a_path_leads_nowhere_nothing_is_mounted(
    mounting: Mounting, box: Box, prepare: str, path: str, number: int
) -> None:
    box.says(prepare)
    before = box.says("cat /proc/mounts")
    with pytest.raises(ChildFailed) as failed:
        await mounting.attach(box, path)
    assert failed.value.errno == number
    assert box.says("cat /proc/mounts") == before
    wait_until(lambda: devices(mounting.volume) == [], "the loop device is gone")


async def test_a_link_leads_to_a_place_of_the_container_wherever_it_points(mounting: Mounting, box: Box) -> None:
    outside = Path("/proc/self/mountinfo").read_text()
    box.says("ln -s ../../../../../../etc/target /tmp/link; mkdir /etc/target")
    await mounting.attach(box, "/tmp/link")
    assert " /etc/target " in box.says("cat /proc/mounts")
    assert Path("/proc/self/mountinfo").read_text() == outside, "the host's mounts are as they were"


async def test_what_is_used_is_not_unmounted_and_who_uses_it_is_told(mounting: Mounting, box: Box) -> None:
    mounted = await mounting.attach(box)
    box.says("cp /bin/busybox /data/sleep; echo x >/data/file")
    with running(box, "cd /data; exec 5</data/file; echo x; exec /data/sleep 1000") as process:
        pid = pid_below(process)
        wait_until(lambda: os.readlink(f"/proc/{pid}/exe") == "/data/sleep", "the program runs")
        with pytest.raises(ChildFailed) as failed:
            await mounting.detach(box, mounted)
        assert failed.value.errno == errno.EBUSY
        found = {(one.pid, one.what, one.path) for one in holders([box.pid, pid], [mounted["device"]])}
        assert {(pid, "file", "/data/file"), (pid, "directory", "/data"), (pid, "program", "/data/sleep")} <= found
        assert [one for one in found if one[1] == "mount"] == [(box.pid, "mount", "/data")]
    assert await mounting.detach(box, mounted) == 1


async def test_by_force_it_goes_from_every_mount_namespace(mounting: Mounting, box: Box) -> None:
    mounted = await mounting.attach(box)
    box.says("mkdir /tmp/again; mount -o bind /data /tmp/again")
    with running(
        box, "exec unshare -m sh -c 'mount -o bind /data /mnt 2>/dev/null; echo x; exec sleep 1000'"
    ) as process:
        pid = pid_below(process)
        assert len([one for one in holders([box.pid, pid], [mounted["device"]]) if one.what == "mount"]) >= 4
        assert await mounting.detach(box, mounted, pid, force=True) >= 4
        assert list(holders([box.pid, pid], [mounted["device"]])) == []
        wait_until(lambda: devices(mounting.volume) == [], "the loop device is gone")


async def test_what_was_unmounted_lazily_inside_is_found_by_its_open_file(mounting: Mounting, box: Box) -> None:
    mounted = await mounting.attach(box)
    with running(box, "exec 5>/data/file; umount -l /data; echo x; exec sleep 1000") as process:
        pid = pid_below(process)
        assert [(one.pid, one.what) for one in holders([box.pid, pid], [mounted["device"]])] == [(pid, "file")]
        assert devices(mounting.volume)
    wait_until(lambda: devices(mounting.volume) == [], "the loop device is gone")


async def test_one_that_is_not_mounted_any_more_is_told_so(mounting: Mounting, box: Box) -> None:
    mounted = await mounting.attach(box)
    box.says("umount /data")
    with pytest.raises(ChildFailed) as failed:
        await mounting.detach(box, mounted)
    assert failed.value.errno == errno.EINVAL


async def test_a_part_that_is_handed_out_raw_is_not_mounted(
    mounting: Mounting, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    fd = os.open(mounting.volume, os.O_RDWR)
    f_ofd_setlk(fd, 0, 0)
    monkeypatch.setattr("sysproc.isolation.volumes.devices.PATIENCE_S", 0.1)
    with pytest.raises(OSError, match="by no loop device") as busy, device_of(mounting.volume, OFFSET, SIZE):
        pass
    assert busy.value.filename == mounting.volume.name, "callers in containers see it: no path of the host"
    os.close(fd)
    with device_of(mounting.volume, OFFSET, SIZE) as device, device_of(mounting.volume, OFFSET, SIZE) as same:
        assert device == same


async def test_a_container_that_has_ended_gets_nothing(mounting: Mounting, box: Box) -> None:
    box.process.communicate()
    with pytest.raises(ChildFailed) as failed:
        await mounting.attach(box)
    assert failed.value.errno == errno.ESRCH
    wait_until(lambda: devices(mounting.volume) == [], "the loop device is gone")
