"""Roots of every shape: what a container, or its image, made of its own files never keeps it from starting again.

Where it has to, the error blames the root that is meant. What archives may hold is in `tests.e2e.test_images`.
"""

from collections.abc import Callable
from tarfile import REGTYPE, SYMTYPE

import pytest

from sysproc_client import Client, Container
from tests.e2e.archives import Archive

Imported = Callable[[bytes], Container]


def restarted(box: Container) -> Container:
    """The same, after a stop and a start."""
    box.stop(grace=0)
    box.start()
    return box


def test_a_full_root_starts_again_and_can_be_cleaned_up(client: Client) -> None:
    box = client.create(size="32M")
    box.run(["sh", "-c", "rm /etc/hosts; dd if=/dev/zero of=/ballast bs=1M; dd if=/dev/zero of=/rest bs=4k"])
    assert b"No space left" in box.run(["sh", "-c", "echo x >/etc/more"]).stderr
    assert restarted(box).run(["rm", "/ballast", "/rest"]).exit_code == 0
    assert restarted(box).run(["cat", "/etc/hosts"]).stdout.split().count(box.message.hostname.encode()) == 1


@pytest.mark.parametrize(("kind", "target"), [(REGTYPE, ""), (SYMTYPE, "/nowhere"), (SYMTYPE, "/proc")])
def test_an_image_whose_etc_is_no_directory_starts(
    archive: Archive, imported: Imported, kind: bytes, target: str
) -> None:
    archive.busybox()
    archive.add("etc", type=kind, linkname=target)
    box = imported(archive.bytes())
    assert box.run(["sh", "-c", "echo runs"]).stdout == b"runs\n"
