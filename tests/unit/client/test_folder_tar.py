"""A folder as the client streams it: everything in it, or an error; never a part that looks whole."""

import io
import os
import socket
import tarfile
from pathlib import Path

import pytest

from sysproc_client.images import add_all, tar_of


def streamed(folder: Path) -> bytes:
    """The whole tar."""
    with tar_of(folder) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def test_everything_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("text")
    (tmp_path / "link").symlink_to("a/b")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "a/socket"))
    with tarfile.open(fileobj=io.BytesIO(streamed(tmp_path))) as archive:
        assert sorted(archive.getnames()) == ["a", "a/b", "a/b/file", "fifo", "link"]
        assert archive.getnames().index("a") < archive.getnames().index("a/b")


def test_a_file_that_gets_shorter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    took_stock = tarfile.TarFile.gettarinfo

    def and_cut(archive: tarfile.TarFile, path: Path, name: str) -> tarfile.TarInfo:
        entry = took_stock(archive, path, name)
        os.truncate(path, 10)
        return entry

    monkeypatch.setattr(tarfile.TarFile, "gettarinfo", and_cut)
    with pytest.raises(OSError, match=r"shorter.*/file"):
        streamed(tmp_path)


@pytest.mark.parametrize("sought", [os.SEEK_DATA, os.SEEK_HOLE], ids=["before data", "before a hole"])
def test_a_file_with_holes_that_gets_shorter_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sought: int
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        for part in range(1, 4):
            file.seek(part << 20)
            file.write(b"part")
    if path.stat().st_blocks * 512 >= path.stat().st_size:
        pytest.skip("files have no holes here")
    seek = os.lseek

    def cut_and_seek(fd: int, at: int, how: int) -> int:
        if how == sought and at > 1 << 20:
            os.truncate(path, (1 << 20) + 4096)
        return seek(fd, at, how)

    monkeypatch.setattr(os, "lseek", cut_and_seek)
    with pytest.raises(OSError, match=r"shorter.*/file"):
        streamed(tmp_path)


def test_a_file_that_goes_is_an_error_and_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    monkeypatch.setattr(os, "listxattr", lambda path, **_: path.unlink() or [])
    with pytest.raises(FileNotFoundError):
        streamed(tmp_path)


def test_who_stops_reading_ends_the_writer(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10 << 20))
    with tar_of(tmp_path) as stream:
        assert len(stream.read(1000)) == 1000


def test_what_was_written_is_not_kept(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as archive:
        add_all(archive, tmp_path)
        assert archive.getmembers() == []
