"""Volumes whose contents come from elsewhere: not given to the kernel before the host has vouched for them."""

import json
import sqlite3

import pytest

from sysproc_client import Client, Container, FailedPrecondition, Volume
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import script_inside
from tests.waiting import wait_until


def from_elsewhere(daemon: RunningDaemon, client: Client, owner: Container) -> Volume:
    """A volume of which it is recorded that others have written into it."""
    client.volumes.create("data", size="32M", owner=owner)
    daemon.kill9()
    with sqlite3.connect(daemon.state_dir / "sysproc.db") as database:
        database.execute("UPDATE volumes SET origin = 'foreign'")
    database.close()
    daemon.start()
    return client.volumes.get("data", owner=owner)


def test_the_host_vouches_and_then_it_is_mounted(client: Client, daemon: RunningDaemon, sysproc: Sysproc) -> None:
    box = client.create(name="box")
    data = from_elsewhere(daemon, client, box)
    for refused in (lambda: data.mount(box, "/data"), lambda: data.shrink("16M")):
        with pytest.raises(FailedPrecondition, match="written elsewhere") as error:
            refused()
        assert "volume trust" in error.value.resolution
    shown = json.loads(sysproc("volume", "trust", "box/data", "-o", "json").stdout)
    assert shown["origin"] == data.refresh().origin == "trusted"
    data.mount(box, "/data")
    assert box.run(["sh", "-c", "echo x >/data/x"]).exit_code == 0
    daemon.restart()
    assert data.refresh().origin == "trusted"


def test_a_container_cannot_vouch_for_its_own(client: Client, daemon: RunningDaemon) -> None:
    box = client.create()
    data = from_elsewhere(daemon, client, box)
    assert script_inside(box, "client.volumes.get('data').trust()")[0] == "PermissionDenied"
    assert data.refresh().origin == "foreign"


def test_what_the_service_made_needs_nobody_who_vouches(client: Client) -> None:
    data = client.volumes.create("data", size="32M")
    assert data.trust().origin == "made"


def test_it_is_not_vouched_for_while_it_is_in_use(client: Client, daemon: RunningDaemon) -> None:
    box = client.create()
    data = from_elsewhere(daemon, client, box)
    (file,) = (daemon.state_dir / "volumes").iterdir()
    with file.open("rb+"), pytest.raises(FailedPrecondition, match="in use"):
        data.trust()
    wait_until(lambda: data.trust().origin == "trusted", "nobody has it any more")
