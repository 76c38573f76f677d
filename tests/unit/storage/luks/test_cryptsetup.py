"""cryptsetup, the other implementation: it opens and changes what we make, and we what it makes."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.errors import Unimplemented
from sysproc.storage.luks.refusals import WrongKey
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import add_key, change_key, format_volume, open_volume, remove_key
from tests.unit.storage.luks.volumes import CHEAP, SIZE, opens

CRYPTSETUP = shutil.which("cryptsetup") or shutil.which("cryptsetup", path="/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(CRYPTSETUP is None, reason="cryptsetup is not installed (apt install cryptsetup-bin)")
FIRST, SECOND = memoryview(b"first"), memoryview(b"second")
CHEAP_ARGON = ("--pbkdf-force-iterations", "4", "--pbkdf-memory", "32", "--pbkdf-parallel", "1")


def cryptsetup(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(CRYPTSETUP), "--batch-mode", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def it_opens(path: Path, secret: str) -> bool:
    return cryptsetup("open", "--test-passphrase", "--key-file=-", str(path), text=secret).returncode == 0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.touch(0o600)
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def made(file: Path) -> Iterator[Region]:
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    yield Region.whole(fd)
    os.close(fd)


def key_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_it_opens_what_we_make(file: Path, made: Region, sector_size: int) -> None:
    format_volume(made, FIRST, cost=CHEAP, sector_size=sector_size, label="ours")
    assert it_opens(file, "first") and not it_opens(file, "second")
    dump = cryptsetup("luksDump", str(file)).stdout
    assert f"sector: {sector_size} [bytes]" in dump and "ours" in dump and "aes-xts-plain64" in dump


def test_it_opens_with_the_keys_that_we_add_change_and_remove(file: Path, made: Region) -> None:
    format_volume(made, FIRST, cost=CHEAP)
    number = add_key(made, FIRST, SECOND, cost=CHEAP)
    assert it_opens(file, "second")
    change_key(made, FIRST, memoryview(b"third"), cost=CHEAP)
    assert it_opens(file, "third") and not it_opens(file, "first")
    remove_key(made, number)
    assert not it_opens(file, "second") and it_opens(file, "third")


def test_both_see_the_same_volume_key(tmp_path: Path, file: Path, made: Region) -> None:
    format_volume(made, FIRST, cost=CHEAP)
    out = tmp_path / "key"
    done = cryptsetup(
        "luksDump", "--dump-volume-key", "--key-file=-", "--volume-key-file", str(out), str(file), text="first"
    )
    assert (done.returncode, out.read_bytes()) == (0, opens(made, b"first"))


KINDS = {
    "argon2id": ("--pbkdf", "argon2id", *CHEAP_ARGON),
    "argon2i": ("--pbkdf", "argon2i", *CHEAP_ARGON),
    "PBKDF2": ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"),
    "PBKDF2 of SHA-512": ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha512"),
    "AES-128": ("--key-size", "256", *CHEAP_ARGON),
    "sectors of 4096": ("--sector-size", "4096", *CHEAP_ARGON),
    "a larger header": ("--luks2-metadata-size", "64k", "--luks2-keyslots-size", "2m", *CHEAP_ARGON),
    "data further on": ("--offset", str((16 << 20) // 512 + 8), *CHEAP_ARGON),
}


@pytest.mark.parametrize("kind", KINDS)
def test_we_open_and_change_what_it_makes(file: Path, made: Region, kind: str) -> None:
    done = cryptsetup("luksFormat", "--type", "luks2", *KINDS[kind], "--key-file=-", str(file), text="first")
    assert done.returncode == 0, done.stderr
    before = opens(made, b"first")
    with pytest.raises(WrongKey):
        opens(made, b"second")
    add_key(made, FIRST, SECOND, cost=CHEAP)
    assert it_opens(file, "second") and opens(made, b"second") == before


def test_it_changes_the_keys_of_what_we_make(tmp_path: Path, file: Path, made: Region) -> None:
    format_volume(made, FIRST, cost=CHEAP)
    one, other = key_file(tmp_path / "one", b"first"), key_file(tmp_path / "other", os.urandom(4096))
    done = cryptsetup("luksAddKey", *CHEAP_ARGON, "--key-file", one, str(file), other)
    assert done.returncode == 0, done.stderr
    before = opens(made, b"first")
    assert opens(made, Path(other).read_bytes()) == before
    assert cryptsetup("luksKillSlot", "--key-file", other, str(file), "0").returncode == 0
    with pytest.raises(WrongKey):
        opens(made, b"first")
    assert opens(made, Path(other).read_bytes()) == before


def test_it_repairs_from_the_copy_that_we_wrote(file: Path, made: Region) -> None:
    format_volume(made, FIRST, cost=CHEAP)
    made.write(4096, b"damaged")
    assert it_opens(file, "first")


def test_what_it_calls_a_detail_stays_when_we_change_keys(file: Path, made: Region) -> None:
    cryptsetup("luksFormat", "--type", "luks2", *CHEAP_ARGON, "--key-file=-", str(file), text="first")
    token = '{"type":"a-token","keyslots":["0"],"note":"kept"}'
    assert cryptsetup("token", "import", str(file), text=token).returncode == 0
    cryptsetup("config", "--label", "theirs", str(file))
    add_key(made, FIRST, SECOND, cost=CHEAP)
    header = open_volume(made)
    assert (header.label.rstrip(b"\0"), header.json["tokens"]["0"]["note"]) == (b"theirs", "kept")
    remove_key(made, 0)
    assert open_volume(made).json["tokens"]["0"]["keyslots"] == [] and it_opens(file, "second")


@pytest.mark.parametrize("kind", [("--type", "luks1"), ("--type", "luks2", "--cipher", "aes-cbc-plain64")])
def test_other_ways_to_encrypt_are_told_apart_from_damage(file: Path, made: Region, kind: tuple[str, ...]) -> None:
    done = cryptsetup("luksFormat", *kind, *KINDS["PBKDF2"], "--key-file=-", str(file), text="first")
    if done.returncode:
        pytest.skip(f"cryptsetup cannot make it here: {done.stderr.strip()[:200]}")
    with pytest.raises(Unimplemented):
        open_volume(made)
