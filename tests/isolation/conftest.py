"""The daemon that tests of one module share, a client of it, a Debian root in it, and the leak check around all.

Containers are shared by the tests of a module: what each one tries does not depend on the others.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.compiled import compiled
from tests.debian.root import debian_root, why_not
from tests.e2e.daemon import RunningDaemon
from tests.isolation.world import World
from tests.leaks import leak_check


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """A sysprocd of this module's own; whatever was made in it is gone at the end, from the kernel and the disk."""
    with RunningDaemon() as running:
        try:
            make_one_container(running)
            with leak_check(running.scope()):
                yield running
                running.destroy_all()
                delete_images(running)
        except BaseException:
            sys.stderr.write(running.log_text())
            raise


def make_one_container(daemon: RunningDaemon) -> None:
    """What the first one makes for all stays: the template of the default root."""
    with Client(daemon.endpoint) as client:
        client.create(image="busybox").destroy()


def delete_images(daemon: RunningDaemon) -> None:
    """Those that tests have imported."""
    with Client(daemon.endpoint) as client:
        for image in client.images.list():
            if image.name != "busybox":
                client.images.delete(image.name)


@pytest.fixture(scope="module")
def client(daemon: RunningDaemon) -> Iterator[Client]:
    """A client of the module's daemon."""
    with Client(daemon.endpoint) as connected:
        yield connected


@pytest.fixture(scope="module")
def debian(client: Client) -> str:
    """The name of the image with the Debian root."""
    if reason := why_not():
        pytest.skip(reason)
    with debian_root().open("rb") as root:
        client.images.import_("debian", root)
    return "debian"


@pytest.fixture(scope="session")
def battery() -> Path:
    """The compiled program of both ends of all channels; static, since the image has no libc."""
    program = compiled(Path(__file__).with_name("native"))
    if program is None:
        pytest.skip("no C compiler here")
    return program


@pytest.fixture(scope="module")
def world(client: Client, battery: Path) -> World:
    """Containers in each relation."""
    return World(client, battery)
