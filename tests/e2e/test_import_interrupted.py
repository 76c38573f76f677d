"""An import that is interrupted leaves nothing, whoever ends at whichever stage; who waits for it is told.

What is left after a crash at each step of the service is in `tests.crash`; imports that are refused are in
`tests.e2e.test_images`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sysproc_client import Client
from tests.archives import Archive
from tests.crash.conftest import arm, failpoints_of
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until

COMMAND = str(Path(sys.executable).with_name("sysproc"))
# What the import waits for there.
STAGES = {"upload": "", "unpacking": "jobs.unpack.after_go", "sealing": "jobs.unpack.after_sync"}


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """A sysprocd whose failpoints are in a file."""
    made = RunningDaemon()
    made.environment["SYSPROC_FAILPOINTS"] = f"@{failpoints_of(made)}"
    made.directory.chmod(0o711)
    arm(made, "")
    with made as running, Client(running.endpoint) as client:
        client.create(image="busybox").destroy()
        yield running


def files_of_images(daemon: RunningDaemon) -> list[str]:
    """With and without a name."""
    directory = daemon.state_dir / "images"
    found = [path.name for path in directory.iterdir()]
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found += [str(fd.readlink())] if fd.readlink().is_relative_to(directory) else []
    return sorted(found)


@contextmanager
def importing(
    daemon: RunningDaemon, archive: Archive, stage: str, tmp_path: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The command, at this stage; it goes on when the block is left."""
    for number in range(50):
        archive.add(f"file{number}", os.urandom(3000))
    (tmp_path / "image.tar").write_bytes(archive.bytes())
    marker, before = daemon.directory / "markers-here", files_of_images(daemon)
    arm(daemon, f"{STAGES[stage]}=1*block({marker})" if STAGES[stage] else "")
    source = "-" if stage == "upload" else str(tmp_path / "image.tar")
    command = [COMMAND, "--endpoint", daemon.endpoint, "image", "import", "new", source]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            if stage == "upload":
                process.stdin.write((tmp_path / "image.tar").read_bytes() + bytes(4 << 20))
                process.stdin.flush()
            reached = marker.exists if STAGES[stage] else lambda: files_of_images(daemon) != before
            wait_until(reached, f"the import is at its {stage}")
            yield process
        finally:
            process.kill()
            marker.unlink(missing_ok=True)
            arm(daemon, "")


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Its exit code and what it has said."""
    assert process.stderr is not None
    said = process.stderr.read().decode()
    return process.wait(), said


def nothing_is_there(daemon: RunningDaemon, client: Client, before: list[str]) -> None:
    """No file, no image; the leak check has the rest."""
    wait_until(lambda: files_of_images(daemon) == before, "no file of it is left")
    assert [image.name for image in client.images.list()] == ["busybox"]


def test_very_many_small_files_are_unpacked_once(
    daemon: RunningDaemon, client: Client, archive: Archive, tmp_path: Path
) -> None:
    """They take four times their room in the tar, which is counted in it: a second filesystem would be an error."""
    for number in range(12_000):
        archive.add(f"many/{number}", b"x")
    (tmp_path / "many.tar").write_bytes(archive.bytes())
    marker = daemon.directory / "markers-here"
    arm(daemon, f"images.import.after_format=1*block({marker})")
    command = [COMMAND, "--endpoint", daemon.endpoint, "image", "import", "many", str(tmp_path / "many.tar")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until(marker.exists, "there is a filesystem for it")
        arm(daemon, "images.import.after_format=raise")
        marker.unlink()
    arm(daemon, "")
    assert process.returncode == 0
    client.images.delete("many")


@pytest.mark.parametrize("stage", STAGES)
def test_an_import_that_is_interrupted_leaves_nothing_and_says_so(
    daemon: RunningDaemon, client: Client, archive: Archive, tmp_path: Path, stage: str
) -> None:
    before = files_of_images(daemon)
    with importing(daemon, archive, stage, tmp_path) as process:
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "sysproc: Interrupted: nothing was imported.\n")
        nothing_is_there(daemon, client, before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_is_killed_leaves_nothing(
    daemon: RunningDaemon, client: Client, archive: Archive, tmp_path: Path, stage: str
) -> None:
    before = files_of_images(daemon)
    with importing(daemon, archive, stage, tmp_path) as process:
        process.kill()
        nothing_is_there(daemon, client, before)


@pytest.mark.parametrize("stage", STAGES)
def test_a_service_that_is_killed_leaves_nothing_and_the_command_says_what_happened(
    daemon: RunningDaemon, client: Client, archive: Archive, tmp_path: Path, stage: str
) -> None:
    before = files_of_images(daemon)
    with importing(daemon, archive, stage, tmp_path) as process:
        daemon.restart()
        code, said = ended(process)
        assert code == 1 and "lost" in said and "Traceback" not in said, said
    nothing_is_there(daemon, client, before)
