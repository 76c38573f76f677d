"""The daemon that tests share, a client of it, a Debian root in it, and the leak check around all.

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


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[RunningDaemon]:
    """A sysprocd; its template for the default root is made already."""
    with RunningDaemon() as running:
        running.make_template()
        yield running


@pytest.fixture(scope="module")
def daemon(shared_daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """The same for all modules; whatever one made in it is gone at its end, from the kernel and the disk."""
    try:
        with leak_check(shared_daemon.scope()):
            yield shared_daemon
            shared_daemon.destroy_all()
            shared_daemon.as_new()
    except BaseException:
        sys.stderr.write(shared_daemon.log_text())
        raise


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
