"""Loop devices that are known by their names: what is read of one, which is found, what there is when none is."""

import errno
import os
from pathlib import Path

import pytest

from sysproc.isolation.volumes.decrypted_devices import DeviceName, decrypted_device

VOLUME = "00c0ffee00c0ffee"
MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.touch()
    os.truncate(path, 8 * MIB)
    return path


def test_a_name_is_read_as_it_was_written_and_others_are_none(file: Path) -> None:
    for filesystem in (None, 0, 15):
        name = DeviceName.of(VOLUME, file, filesystem)
        assert DeviceName.read(str(name)) == name and len(str(name)) < 64 and name.is_of(file.stat())
    longest = DeviceName(VOLUME, 2**32 - 1, 2**64 - 1, 15)
    assert DeviceName.read(str(longest)) == longest and len(str(longest)) < 64
    for other in (
        "",
        "sysproc:",
        "/var/lib/x",
        f"sysproc:{VOLUME}:1:2",
        f"sysproc:{VOLUME}:1:2:3:4",
        "sysproc:x:1:2:3",
    ):
        assert DeviceName.read(other) is None


def test_what_is_not_open_is_told_by_its_errno(file: Path) -> None:
    asked = {"volume": VOLUME, "filesystem": 0, "whole": False, "offset": 0, "size": 0, "block_size": 0}
    with pytest.raises(OSError) as missing, decrypted_device(file, asked, []):
        pass
    assert missing.value.errno == errno.ENOKEY
