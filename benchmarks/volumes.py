"""Volumes: how long it takes to make and mount one, what I/O on one costs beside the host's own disk, and memory.

Each figure stands beside that of the host's disk below it, from the same run. What encryption costs is in
`benchmarks.encrypted_volume`. Peers with volumes of their own (podman, systemd-nspawn) are left out: a bind mount of
theirs is the host's disk itself.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from pathlib import Path

from benchmarks.measure import Timing, interleaved, timed_ms
from sysproc_client import Client, Container
from tests.e2e.inside import init_of

PLACE = "/bench"
# Name, what fio does, whether its figure is MB/s (else operations a second).
JOBS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("sequential write", ("--rw=write", "--bs=1M"), True),
    ("sequential read", ("--rw=read", "--bs=1M"), True),
    ("random read 4k", ("--rw=randread", "--bs=4k"), False),
    ("random write 4k", ("--rw=randwrite", "--bs=4k"), False),
    ("write 4k, fdatasync each", ("--rw=write", "--bs=4k", "--fdatasync=1"), False),
)
FILE_BYTES, SECONDS, MOUNTS = 128 << 20, 2, 20


@dataclass(frozen=True)
class Place:
    """A directory, and how a command gets to have it as its own."""

    directory: Path
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Io:
    """One job: what the volume does, what the host's disk does."""

    job: str
    direct: bool
    volume: float
    host: float
    unit: str

    @property
    def ratio(self) -> float:
        """Of the volume to the host's disk."""
        return self.volume / self.host


def making(client: Client, runs: int) -> Sequence[Timing]:
    """Creation through the API, by size; and the deletion."""
    works: dict[str, Callable[[], object]] = {}
    numbers = count()
    for size in ("1G", "64G"):
        works[f"create {size}"] = partial(create, client, numbers, size)
    timings = interleaved(works, runs)
    deletes = [timed_ms(volume.delete) for volume in client.volumes.list()]
    return [*timings, Timing("delete", tuple(deletes))]


def create(client: Client, numbers: "count[int]", size: str) -> None:
    """One more."""
    client.volumes.create(f"bench-{next(numbers)}", size=size, overcommit=True)


def mounting(client: Client, runs: int) -> Sequence[Timing]:
    """Into a container that runs, and out again: with its device, and where that is there already."""
    box, other = client.create(image="busybox"), client.create(image="busybox")
    volume = client.volumes.create("bench", size="1G", overcommit=True)
    times: dict[str, list[float]] = {name: [] for name in ("mount", "mount, second", "umount, first", "umount")}
    for _ in range(runs):
        times["mount"].append(timed_ms(lambda: volume.mount(box, PLACE)))
        times["mount, second"].append(timed_ms(lambda: volume.mount(other, PLACE)))
        times["umount, first"].append(timed_ms(lambda: client.volumes.unmount(other, PLACE)))
        times["umount"].append(timed_ms(lambda: client.volumes.unmount(box, PLACE)))
    box.destroy()
    other.destroy()
    volume.delete()
    return [Timing(name, tuple(taken)) for name, taken in times.items()]


def io(client: Client, disk: Path) -> Sequence[Io]:
    """fio on a volume and on the disk that its file is on, in turn; none without fio."""
    if shutil.which("fio") is None:
        print("I/O on volumes is left out: fio is not installed")
        return []
    with ExitStack() as stack:
        box = client.create(image="busybox")
        stack.callback(box.destroy)
        volume = client.volumes.create("bench", size="2G", overcommit=True)
        volume.mount(box, PLACE)
        host = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)))
        init = init_of(box)
        # The host's root is nobody on a volume.
        inside = Place(Path(f"/proc/{init}/root{PLACE}"), ("nsenter", f"--target={init}", "--user", "-S0", "-G0"))
        ways = product((False, True), JOBS)
        found = [one(name, words, by_bytes, direct, inside, Place(host)) for direct, (name, words, by_bytes) in ways]
        client.volumes.unmount(box, PLACE, force=True)
        volume.delete()
    return found


def one(job: str, words: tuple[str, ...], by_bytes: bool, direct: bool, volume: Place, host: Place) -> Io:
    """One job in both places."""
    inside, outside = (fio(place, (*words, f"--direct={int(direct)}"), by_bytes) for place in (volume, host))
    return Io(job, direct, inside, outside, "MB/s" if by_bytes else "op/s")


def fio(place: Place, words: tuple[str, ...], by_bytes: bool) -> float:
    """What a job reaches in a directory. It begins with what is on the disk, not with what is cached."""
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


def memory_of_mounts(client: Client, mounts: int = MOUNTS) -> float:
    """What the kernel has more for each filesystem that is mounted, in KiB (Slab of /proc/meminfo and what is free)."""
    box = client.create(image="busybox")
    volumes = [client.volumes.create(f"bench-{n}", size="64M", overcommit=True) for n in range(mounts)]
    before = available_kib()
    for number, volume in enumerate(volumes):
        volume.mount(box, f"{PLACE}/{number}")
    each = (before - available_kib()) / mounts
    clear(client, box)
    return each


def clear(client: Client, box: Container) -> None:
    """The container and all volumes."""
    for number, volume in enumerate(client.volumes.list()):
        client.volumes.unmount(box, f"{PLACE}/{number}")
        volume.delete()
    box.destroy()


def available_kib() -> float:
    """MemAvailable, once what can be dropped is written."""
    os.sync()
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return float(lines["MemAvailable"].split()[0])
