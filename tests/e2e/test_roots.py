"""Roots of every shape: what a container, or its image, made of its own files never keeps it from starting again.

Where it has to, the error blames the root that is meant. What archives may hold is in `tests.e2e.test_images`.
"""

import io
import os
from collections.abc import Callable
from contextlib import suppress
from tarfile import REGTYPE, SYMTYPE

import pytest

from sysproc_client import Client, Container, FailedPrecondition, LimitExceeded
from tests.archives import Archive
from tests.e2e.daemon import RunningDaemon
from tests.e2e.root_files import root_of

Imported = Callable[[bytes], Container]


def fill(root: str) -> None:
    """Take what is free, to the last block."""
    for name, block in (("ballast", 1 << 20), ("rest", 4096)):
        fd = os.open(f"{root}/{name}", os.O_WRONLY | os.O_CREAT, 0o600)
        with suppress(OSError):
            while os.write(fd, b"x" * block):
                pass
        os.fsync(fd)
        os.close(fd)


def restarted(box: Container) -> Container:
    """The same, after a stop and a start."""
    box.stop(grace=0)
    box.start()
    return box


@pytest.mark.parametrize("script", ["rm -r /tmp; ln -s /var/tmp /tmp", "rm -r /tmp; touch /tmp", "rm -r /tmp"])
def test_whatever_becomes_of_tmp_the_container_starts_again(client: Client, script: str) -> None:
    box = client.create()
    assert box.run(["sh", "-c", script]).exit_code == 0
    before = box.run(["stat", "-c", "%F", "/tmp"]).stdout or b"directory\n"
    assert restarted(box).run(["stat", "-c", "%F", "/tmp"]).stdout == before


def test_a_full_root_starts_again_and_can_be_cleaned_up(client: Client) -> None:
    box = client.create(size="32M")
    box.run(["sh", "-c", "rm /etc/hosts; dd if=/dev/zero of=/ballast bs=1M; dd if=/dev/zero of=/rest bs=4k"])
    assert b"No space left" in box.run(["sh", "-c", "echo x >/etc/more"]).stderr
    assert restarted(box).run(["rm", "/ballast", "/rest"]).exit_code == 0
    assert restarted(box).run(["cat", "/etc/hosts"]).stdout.split().count(box.message.hostname.encode()) == 1


def test_a_full_root_without_room_for_a_mount_point_is_what_is_full(client: Client, daemon: RunningDaemon) -> None:
    box = client.create(start=False, size="32M")
    with root_of(daemon, box) as root:
        for name in ("dev", "proc", "sys", "run", "tmp"):
            if os.path.isdir(f"{root}/{name}"):
                os.rmdir(f"{root}/{name}")
        fill(root)
    with pytest.raises(LimitExceeded, match=rf"root of container {box.id} is full.*/dev"):
        box.start()
    assert box.state == "stopped"


@pytest.mark.parametrize(("kind", "target"), [(REGTYPE, ""), (SYMTYPE, "/nowhere"), (SYMTYPE, "/proc")])
def test_an_image_whose_etc_is_no_directory_starts(
    archive: Archive, imported: Imported, kind: bytes, target: str
) -> None:
    archive.busybox()
    archive.add("etc", type=kind, linkname=target)
    box = imported(archive.bytes())
    assert box.run(["sh", "-c", "echo runs"]).stdout == b"runs\n"


def test_a_link_in_the_place_of_a_mount_point_is_blamed_on_the_root_that_has_it(
    client: Client, daemon: RunningDaemon
) -> None:
    box = client.create()
    box.stop(grace=0)
    with root_of(daemon, box) as root:
        os.rmdir(f"{root}/dev")
        os.symlink("/bin", f"{root}/dev")
    with pytest.raises(FailedPrecondition, match=rf"root of container {box.id} .*/dev") as refused:
        box.start()
    assert "image" not in str(refused.value)
    assert box.state == "stopped"


def test_a_link_in_the_place_of_a_mount_point_is_blamed_on_a_new_containers_image(
    client: Client, archive: Archive
) -> None:
    archive.busybox()
    archive.add("run", type=SYMTYPE, linkname="/bin")
    client.images.import_("hostile", io.BytesIO(archive.bytes()))
    with pytest.raises(FailedPrecondition, match=r"image hostile .*/run"):
        client.create(image="hostile")
    assert client.list() == []
    client.images.delete("hostile")
