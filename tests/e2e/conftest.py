"""The daemon that tests share, a client of it, and the leak check around each test.

A test that kills or restarts the daemon may do so: the next one gets it running again. How the daemon is started is
in `tests.e2e.daemon`.
"""

import io
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysproc_client import Client, Container
from tests.archives import Archive
from tests.e2e.daemon import RunningDaemon
from tests.leaks import leak_check

Sysproc = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the daemon says goes with a failure; the machine that it ran on may be gone when somebody reads it."""
    report = yield
    running = getattr(item, "funcargs", {}).get("daemon")
    if report.failed and isinstance(running, RunningDaemon):
        report.sections.append(("the end of sysprocd's log", running.log_text()))
    return report


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[RunningDaemon]:
    """A sysprocd; its template for the default root is made already."""
    with RunningDaemon() as running:
        with logged_on_failure(running):
            running.make_template()
        yield running


@pytest.fixture(scope="module")
def daemon(shared_daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """The one that most modules share, for starting one takes seconds; each leaves it as it was."""
    yield shared_daemon
    shared_daemon.as_new()


@contextmanager
def logged_on_failure(daemon: RunningDaemon) -> Iterator[None]:
    """What the daemon knows of a failure goes to the test's output; the machine may be gone afterwards."""
    try:
        yield
    except BaseException:
        sys.stderr.write(daemon.log_text())
        raise


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: RunningDaemon) -> Iterator[None]:
    """Whatever a test makes is gone after it, from the kernel and from the disk."""
    if not daemon.alive():
        daemon.start()
    with leak_check(daemon.scope()):
        yield
        daemon.destroy_all()
        daemon.delete_volumes()


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    """A client of the module's daemon."""
    with Client(daemon.endpoint) as connected:
        yield connected


@pytest.fixture
def box(client: Client) -> Container:
    """A container; it is destroyed with all others."""
    return client.create(name="box")


@pytest.fixture
def sysproc(daemon: RunningDaemon) -> Sysproc:
    """Runs the `sysproc` command: sysproc("create", "--name", "web")."""
    command = Path(sys.executable).with_name("sysproc")

    def run(*arguments: str | bytes, input: bytes = b"", timeout: float = 60) -> "subprocess.CompletedProcess[bytes]":
        call = [str(command), "--endpoint", daemon.endpoint, *arguments]
        return subprocess.run(call, input=input, capture_output=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def archive() -> Archive:
    """A tar to which entries are added."""
    return Archive()


@pytest.fixture
def imported(client: Client) -> Iterator[Callable[[bytes], Container]]:
    """Import these bytes and make a container of them; both are gone afterwards."""
    boxes: list[Container] = []

    def make(data: bytes) -> Container:
        client.images.import_("hostile", io.BytesIO(data))
        boxes.append(client.create(image="hostile", size="256M"))
        return boxes[0]

    yield make
    for box in boxes:
        box.destroy()
    if any(image.name == "hostile" for image in client.images.list()):
        client.images.delete("hostile")
