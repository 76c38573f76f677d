"""The state directory, copied file by file while nothing runs, is a backup; see docs/OPERATING.md.

What is left of one that loses its power is in `tests.crash.test_power_cut`.
"""

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from sysproc_client import Client
from tests.e2e.daemon import RunningDaemon


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """One whose state is taken away."""
    with RunningDaemon() as running:
        running.make_template()
        yield running


def test_a_daemon_goes_on_from_a_copy_of_its_state(
    daemon: RunningDaemon, client: Client, nothing_is_left: None
) -> None:
    web = client.create(name="web", memory="64M")
    data = client.volumes.create("data", size="32M")
    with data.mount(web, "/srv/data"):
        web.run(["sh", "-c", "echo in the volume >/srv/data/file; echo in the root >/file"])
    web.stop()
    put_back_from_a_copy(daemon)
    back = client.get("web")
    assert (back.id, back.state, back.message.limits) == (web.id, "stopped", web.message.limits)
    back.start()
    with client.volumes.get("data").mount(back, "/srv/data"):
        assert back.run(["cat", "/file", "/srv/data/file"]).stdout == b"in the root\nin the volume\n"
    back.destroy()
    client.volumes.get("data").delete()


def put_back_from_a_copy(daemon: RunningDaemon) -> None:
    """As the page says it, and of the first one nothing is left."""
    copy = daemon.directory / "copy"
    assert daemon.terminate() == 0
    cp = ["cp", "-a", "--sparse=always"]
    subprocess.run([*cp, daemon.state_dir, copy], check=True, timeout=120)
    shutil.rmtree(daemon.state_dir)
    subprocess.run([*cp, copy, daemon.state_dir], check=True, timeout=120)
    shutil.rmtree(copy)
    daemon.start()
