"""Encrypted volumes that somebody wants alone, or past the host's page cache.

What is not encrypted is in `tests.e2e.test_volume_mounts`.
"""

import pytest

from sysproc.linux.device_mapper import why_not
from sysproc_client import Client, Container, FailedPrecondition
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.encrypted import SECRET, needs_fuse
from tests.e2e.inside import says
from tests.waiting import wait_until

pytestmark = needs_fuse
PARTS = [("one", "ext4", "28M"), ("two", "ext4", "28M")]


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_what_is_mounted_exclusively_is_mounted_once(
    client: Client, daemon: RunningDaemon, box: Container, encrypt: str
) -> None:
    other, data = client.create(), client.volumes.create("data", filesystems=PARTS, encrypt=encrypt, secret=SECRET)
    data.mount(other, "/data", filesystem="one", secret=SECRET)
    with pytest.raises(FailedPrecondition, match="in use elsewhere"):
        data.mount(box, "/data", filesystem="one", exclusive=True, secret=SECRET)
    client.volumes.unmount(other, "/data")
    data.mount(box, "/data", filesystem="one", exclusive=True, secret=SECRET)
    data.mount(other, "/two", filesystem="two", secret=SECRET)
    shown = {one.filesystem: one.exclusive for one in data.refresh().attached_to}
    assert shown == {"one": True, "two": False}
    daemon.restart()
    for exclusive in (False, True):
        with pytest.raises(FailedPrecondition, match="in use elsewhere"):
            data.mount(other, "/data", filesystem="one", exclusive=exclusive, read_only=True, secret=SECRET)
    says(box, "echo kept >/data/file")
    box.destroy()
    wait_until(lambda: len(data.refresh().attached_to) == 1, "only the other filesystem is mounted")
    data.mount(other, "/data", filesystem="one", exclusive=True, secret=SECRET)
    assert says(other, "cat /data/file") == b"kept\n"
    data.lock(force=True)
    data.mount(other, "/data", filesystem="one", secret=SECRET)
    assert [one.exclusive for one in data.refresh().attached_to] == [False]


@pytest.mark.parametrize("encrypt", ["fs", "whole"])
def test_direct_io_is_for_what_the_kernel_decrypts(client: Client, box: Container, encrypt: str) -> None:
    data = client.volumes.create("data", size="48M", encrypt=encrypt, secret=SECRET)
    if why_not() is not None:
        with pytest.raises(FailedPrecondition, match="dm-crypt") as refused:
            data.mount(box, "/data", direct_io=True, secret=SECRET)
        assert refused.value.reason == "NO_DIRECT_IO" and not data.refresh().unlocked
        data.mount(box, "/data", secret=SECRET)
    else:
        data.mount(box, "/data", direct_io=True, secret=SECRET)
        says(box, "head -c 3000000 /dev/urandom >/data/file; sha256sum /data/file >/data/sum")
        assert [one.direct_io for one in data.refresh().attached_to] == [True]
        data.lock(force=True)
        data.mount(box, "/data", secret=SECRET)
        says(box, "sha256sum -c /data/sum")
    assert [one.direct_io for one in data.refresh().attached_to] == [False]
    with pytest.raises(FailedPrecondition, match="cannot be mounted with direct I/O") as shared:
        data.mount(box, "/again", direct_io=True)
    assert shared.value.reason == "NO_DIRECT_IO"


def test_the_command_says_how_it_is_mounted(client: Client, sysproc: Sysproc, box: Container) -> None:
    client.volumes.create("data", size="48M", encrypt="fs", secret=SECRET)
    mount = ("mount", "box", "data", "/data", "--key-file", "-")
    refused = sysproc(*mount, "--direct-io", input=SECRET.encode())
    if why_not() is not None:
        assert b"dm-crypt" in refused.stderr and b"Leave direct I/O out" in refused.stderr
        assert sysproc(*mount, "--exclusive", input=SECRET.encode()).returncode == 0
        assert b"rw,exclusive" in sysproc("volume", "inspect", "data").stdout


TRICKS = {
    "a namespace": "unshare -m sh -c 'sleep 1000' >/dev/null 2>&1 & sleep 0.3; umount /data",
    "a namespace of other users": "unshare -Umr sh -c 'sleep 1000' >/dev/null 2>&1 & sleep 0.3; umount /data",
    "a file": "sleep 1000 <>/data/file >/dev/null 2>&1 & sleep 0.3; umount -l /data",
    "a directory": "cd /data; sleep 1000 >/dev/null 2>&1 & sleep 0.3; umount -l /data",
}


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("fs", ["ext4", "btrfs"])
def test_who_uses_it_where_nobody_sees_it_is_named_and_keeps_nobody_from_locking_it(
    client: Client, daemon: RunningDaemon, box: Container, fs: str, trick: str
) -> None:
    data = client.volumes.create("data", size="160M", fs=fs, encrypt="fs", secret=SECRET)
    data.mount(box, "/data", secret=SECRET)
    says(box, "echo kept >/data/file")
    says(box, TRICKS[trick])
    assert data.refresh().attached_to == [] and data.unlocked
    for refused in (data.lock, data.delete):
        with pytest.raises(FailedPrecondition, match=r"sleep \(\d+\) in") as used:
            refused()
        assert used.value.reason == "VOLUME_IN_USE"
    data.lock(force=True)
    assert not data.refresh().unlocked
    data.mount(box, "/data", secret=SECRET)
    assert says(box, "cat /data/file") == b"kept\n"
