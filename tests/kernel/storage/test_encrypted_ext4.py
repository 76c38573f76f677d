"""ext4 in an encrypted volume: survives the death of the volume's process, and shows nothing to who has the file."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.kernel.storage.open_volume import disk, ended, ext4, fsck, mke2fs, needs_fuse, opened, released, volume_file
from tests.waiting import wait_until

pytestmark = needs_fuse

MARK = "a-secret-of-some-length"


def test_on_disk_is_no_plaintext_of_names_or_contents(tmp_path: Path) -> None:
    with volume_file(tmp_path / "volume") as region, disk(region) as opened_disk:
        mke2fs(opened_disk.device)
        with ext4(opened_disk.device) as root:
            (root / f"{MARK}.directory").mkdir()
            (root / f"{MARK}.directory" / f"{MARK}.name").write_text(f"{MARK}.content\n" * 10_000)
            (root / "link").symlink_to(f"{MARK}.link")
            os.sync()
        decrypted = Path(opened_disk.device).read_bytes()
        on_disk = (tmp_path / "volume").read_bytes()
    for kind in ("directory", "name", "content", "link"):
        assert f"{MARK}.{kind}".encode() in decrypted
    assert MARK.encode() not in on_disk and b"lost+found" not in on_disk
    assert b"lost+found" in decrypted


class Writer:
    """Writes files and remembers those whose fsync has returned, until an error."""

    def __init__(self, root: Path) -> None:
        self._root, self.kept, self.failure = root, dict[str, bytes](), OSError()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for number in range(100_000):
                self._write(f"f{number % 400}", os.urandom(1 + number * 997 % 20_000))
        except OSError as failure:
            self.failure = failure

    def _write(self, name: str, data: bytes) -> None:
        fresh = self._root / f"{name}.new"
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._root / name)
        directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.kept.pop(name, None)
            os.fsync(directory)
            self.kept[name] = data
        finally:
            os.close(directory)


@pytest.mark.parametrize("acknowledged", [1, 40, 150])
def test_its_process_is_killed_and_nothing_acknowledged_is_lost(tmp_path: Path, acknowledged: int) -> None:
    with volume_file(tmp_path / "volume") as region:
        first = opened(region)
        device_fd, device = first.attach()
        os.close(first.fd)
        mke2fs(device)
        with ext4(device) as root:
            writer = Writer(root)
            writer.thread.start()
            wait_until(lambda: len(writer.kept) >= acknowledged, f"{acknowledged} files are written")
            os.kill(first.pid, signal.SIGKILL)
            writer.thread.join()
        assert writer.failure.errno and ended(first.pid) == -signal.SIGKILL
        os.close(device_fd)
        released(device)
        with disk(region) as again:
            with ext4(again.device) as root:
                found = {name: (root / name).read_bytes() for name in writer.kept}
            assert found == writer.kept
            wait_until(lambda: fsck(again.device).returncode == 0, "the filesystem is clean")
