"""I/O on a volume, by fio: plain, mounted with `--direct-io`, encrypted; beside the host's disk and what others mount.

All figures of one job are from the same run, one place after the other. Encrypted ones go through the service as any
other: what decrypts them is the kernel's dm-crypt, or a process where there is none. Other times of volumes are in
`benchmarks.volumes`; the tables are drawn by `benchmarks.io_tables`.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks import volume_peers
from benchmarks.left_out import LeftOut, entered, leave_out
from sysproc_client import Client, Container
from tests.e2e.inside import init_of

TITLE, WHERE, SECRET = "I/O on a volume", "/bench", "benchmark"
# Name, what fio does, whether its figure is MB/s (else operations a second).
JOBS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("sequential write", ("--rw=write", "--bs=1M"), True),
    ("sequential read", ("--rw=read", "--bs=1M"), True),
    ("random read 4k", ("--rw=randread", "--bs=4k"), False),
    ("random write 4k", ("--rw=randwrite", "--bs=4k"), False),
    ("write 4k, fdatasync each", ("--rw=write", "--bs=4k", "--fdatasync=1"), False),
)
FILE_BYTES, SECONDS = 128 << 20, 2
# What each figure is called, by its field.
PLACES = {
    "volume": "volume",
    "host": "host",
    "loop": "mount -o loop",
    "direct_io": "volume, --direct-io",
    "encrypted": "volume, encrypted",
    "encrypted_direct_io": "volume, encrypted, --direct-io",
    "nspawn": "systemd-nspawn --image",
    "podman": "podman volume",
}


@dataclass(frozen=True)
class Place:
    """A directory, and how a command gets to have it as its own."""

    directory: Path
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Io:
    """One job: what it reaches in each place (PLACES). direct: whether fio itself asks for O_DIRECT."""

    job: str
    direct: bool
    volume: float
    host: float
    unit: str
    loop: float | None = None
    direct_io: float | None = None
    encrypted: float | None = None
    encrypted_direct_io: float | None = None
    nspawn: float | None = None
    podman: float | None = None

    @property
    def name(self) -> str:
        """With how fio opens its file."""
        return f"{self.job}, {'direct' if self.direct else 'buffered'}"

    @property
    def ratio(self) -> float:
        """Of the volume to the host's disk."""
        return self.volume / self.host

    def of(self, place: str) -> float | None:
        """What it reached in one of PLACES; None: not measured."""
        figure: float | None = getattr(self, place)
        return figure


def io(client: Client, disk: Path, left_out: LeftOut) -> tuple[Sequence[Io], str | None]:
    """All jobs in all places, in turn; and what decrypts. None without fio."""
    if shutil.which("fio") is None:
        leave_out(left_out, "fio", "it is not installed")
        return [], None
    with ExitStack() as stack:
        box = stack.enter_context(client.create(image="busybox"))
        places = dict(ours(client, box, stack, left_out)) | dict(theirs(disk, stack, left_out))
        ways = product((False, True), JOBS)
        found = [one(name, words, by_bytes, direct, places) for direct, (name, words, by_bytes) in ways]
        return found, decrypted_by(places["encrypted"].directory) if "encrypted" in places else None


def ours(client: Client, box: Container, stack: ExitStack, left_out: LeftOut) -> Iterator[tuple[str, Place]]:
    """Volumes of one size in one container."""
    for field in ("volume", "direct_io", "encrypted", "encrypted_direct_io"):
        place = entered(stack, PLACES[field], mounted(client, box, field), left_out)
        if place is not None:
            yield field, place


@contextmanager
def mounted(client: Client, box: Container, field: str) -> Iterator[Place]:
    """A new volume in the container. The host's root is nobody on it."""
    encrypt, secret = ("fs", SECRET) if field.startswith("encrypted") else ("", None)
    path, init = f"{WHERE}/{field}", init_of(box)
    with (
        client.volumes.create(f"bench-{field}", size="2G", overcommit=True, encrypt=encrypt, secret=secret) as volume,
        volume.mount(box, path, direct_io=field.endswith("direct_io"), secret=secret),
    ):
        yield Place(Path(f"/proc/{init}/root{path}"), ("nsenter", f"--target={init}", "--user", "-S0", "-G0"))


def theirs(disk: Path, stack: ExitStack, left_out: LeftOut) -> Iterator[tuple[str, Place]]:
    """The host's disk itself, and what others mount."""
    host = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)))
    yield "host", Place(host)
    contexts = {
        "loop": volume_peers.plain_ext4(host),
        "nspawn": volume_peers.nspawned(host),
        "podman": volume_peers.podman_volume(),
    }
    for field, context in contexts.items():
        directory = entered(stack, PLACES[field], context, left_out)
        if directory is not None:
            yield field, Place(directory)


def decrypted_by(directory: Path) -> str:
    """By what is below the filesystem that is mounted there: a device of the kernel's, or a file of a process."""
    device = os.stat(directory).st_dev
    mapped = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/dm").is_dir()
    return "dm-crypt" if mapped else "a process of the service"


def one(job: str, words: tuple[str, ...], by_bytes: bool, direct: bool, places: Mapping[str, Place]) -> Io:
    """One job in each place."""
    words = (*words, f"--direct={int(direct)}")
    figures = {field: fio(place, words, by_bytes) for field, place in places.items()}
    return Io(job, direct, unit="MB/s" if by_bytes else "op/s", **figures)


def fio(place: Place, words: tuple[str, ...], by_bytes: bool) -> float:
    """What a job reaches in a directory. It begins with what is on the disk, not with what is cached."""
    os.sync()  # what the last place has still to write is not this one's
    command = [
        *place.prefix,
        "fio",
        "--name=job",
        f"--filename={place.directory}/file",
        f"--size={FILE_BYTES}",
        "--ioengine=psync",
    ]
    command += ["--time_based", f"--runtime={SECONDS}", "--invalidate=1", "--output-format=json", *words]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["jobs"][0]
    done = said["read" if "read" in words[0] else "write"]
    return float(done["bw_bytes"] / 1e6 if by_bytes else done["iops"])
