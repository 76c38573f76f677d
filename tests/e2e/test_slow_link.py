"""A client over a link that is slow or silent: nothing is given up that still moves, and who waits is told why."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc_client import Client, TimedOut
from sysproc_client.aio import AsyncClient
from tests.archives import Archive
from tests.e2e.daemon import RunningDaemon
from tests.e2e.slow_link import SlowLink, slow_link
from tests.waiting import wait_until

BYTES_S = 1 << 20


@pytest.fixture
def link(daemon: RunningDaemon, tmp_path: Path) -> Iterator[SlowLink]:
    with slow_link(tmp_path / "link", daemon.runtime_dir / "sysproc.sock", BYTES_S) as made:
        yield made


@pytest.fixture
def slowly(link: SlowLink) -> Iterator[Client]:
    """A client that is impatient with each call, but not with what moves."""
    with Client(link.endpoint, timeout=1.5) as client:
        yield client


def test_much_output_arrives_whole_and_calls_are_answered_meanwhile(slowly: Client) -> None:
    with slowly.create() as box:
        process = box.exec(["head", "-c", str(4 * BYTES_S), "/dev/zero"], stdin=False)
        chunks = iter(process)
        got = len(next(chunks).data)
        assert [one.id for one in slowly.list()] == [box.id]
        assert process.ended is None, "it was still coming"
        assert got + sum(len(chunk.data) for chunk in chunks) == 4 * BYTES_S


def test_an_import_that_takes_longer_than_a_call_may_goes_on_as_long_as_it_moves(
    slowly: Client, archive: Archive
) -> None:
    archive.add("big", os.urandom(3 * BYTES_S))
    done: list[int] = []
    slowly.images.import_("slow", io.BytesIO(archive.bytes()), progress=lambda one: done.append(one.received_bytes))
    assert done == sorted(done) and done[-1] > 3 * BYTES_S
    slowly.images.delete("slow")


def test_a_silent_link_ends_a_call_in_its_time_and_another_goes_on_when_it_speaks(
    slowly: Client, link: SlowLink
) -> None:
    with slowly.create(name="web") as box:
        link.stall()
        with pytest.raises(TimedOut) as silent:
            slowly.get("web")
        assert silent.value.resolution
        link.flow()
        assert slowly.get("web").id == box.id


def test_ctrl_c_ends_an_import_that_is_stuck_and_nothing_is_left(
    client: Client, daemon: RunningDaemon, link: SlowLink, archive: Archive, tmp_path: Path
) -> None:
    archive.add("big", os.urandom(8 * BYTES_S))
    (tmp_path / "big.tar").write_bytes(archive.bytes())
    command = [str(Path(sys.executable).with_name("sysproc")), f"--endpoint={link.endpoint}"]
    importing = subprocess.Popen(
        [*command, "image", "import", "stuck", tmp_path / "big.tar"], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_until(lambda: link.carried > BYTES_S, "it is under way")
    link.stall()
    importing.send_signal(signal.SIGINT)
    _, said = importing.communicate(timeout=30)
    assert importing.returncode == 130 and b"Traceback" not in said
    link.flow()
    assert "stuck" not in [image.name for image in client.images.list()]
    wait_until(lambda: not spooled(daemon), "nothing of it is kept")


async def test_an_import_that_is_stuck_can_be_cancelled(link: SlowLink, archive: Archive) -> None:
    archive.add("big", os.urandom(8 * BYTES_S))
    async with AsyncClient(link.endpoint) as later:
        importing = asyncio.ensure_future(later.images.import_("stuck", io.BytesIO(archive.bytes())))
        await asyncio.to_thread(wait_until, lambda: link.carried > BYTES_S, "it is under way")
        link.stall()
        importing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await importing
    link.flow()


def spooled(daemon: RunningDaemon) -> list[Path]:
    """What has arrived of archives, and is on the disk."""
    return [path for path in (daemon.state_dir / "images").rglob("*") if path.is_file() and "stuck" in path.name]
