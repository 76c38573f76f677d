"""A state directory that is a mount by itself: volumes are found by the paths of their files, whoever has opened these.

The disk is a tmpfs of the test's own.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.linux.mounts import MNT_DETACH, mount, umount2
from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """A daemon whose directories are on a filesystem of their own."""
    disk = tmp_path_factory.mktemp("disk")
    mount("tmpfs", disk, fstype="tmpfs", data="size=128m")
    before, tempfile.tempdir = tempfile.tempdir, str(disk)
    try:
        with RunningDaemon() as running, Client(running.endpoint) as client:
            client.create(image="busybox", overcommit=True).destroy()
            yield running
    finally:
        tempfile.tempdir = before
        umount2(disk, MNT_DETACH)


@pytest.mark.parametrize(
    "encrypt",
    [
        "",
        *(
            pytest.param(one, marks=pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="no FUSE (/dev/fuse)"))
            for one in ("fs", "whole")
        ),
    ],
)
def test_a_volume_is_mounted_twice_shown_and_unmounted(client: Client, nothing_is_left: None, encrypt: str) -> None:
    box = client.create(overcommit=True)
    secret = "a passphrase" if encrypt else None
    data = client.volumes.create("data", size="32M", encrypt=encrypt, secret=secret)
    for path in ("/one", "/two"):
        data.mount(box, path, secret=secret)
    assert [one.path for one in data.refresh().attached_to] == [b"/one", b"/two"]
    for path in ("/one", "/two"):
        client.volumes.unmount(box, path)
    assert not data.refresh().attached_to
    data.delete()
    box.destroy()
