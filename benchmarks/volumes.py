"""Volumes: how long it takes to make, mount and copy one, what I/O on one costs beside the host's own disk, and memory.

Each figure of I/O stands beside that of the host's disk below it, and of an ext4 mounted by `mount -o loop`, from the
same run. What encryption costs is in `benchmarks.encrypted_volume`, what others mount in `benchmarks.volume_peers`.
`python -m benchmarks.volumes_alone` measures nothing but these.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count, product
from pathlib import Path

from benchmarks import volume_peers
from benchmarks.measure import Timing, interleaved, timed_ms
from sysproc_client import Client, Container, Volume
from tests.crash.scratch_disk import NoSuchDisk, ScratchDisk
from tests.e2e.daemon import RunningDaemon
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
USED_BYTES, REFLINK_BYTES, MOST_COPIES = 200 << 20, 4 << 30, 10


@dataclass(frozen=True)
class Place:
    """A directory, and how a command gets to have it as its own."""

    directory: Path
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True)
class Io:
    """One job: what the volume does, what the host's disk does, what an ext4 of `mount -o loop` does."""

    job: str
    direct: bool
    volume: float
    host: float
    unit: str
    loop: float | None = None

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


def mounting_beside_others(client: Client, disk: Path, runs: int) -> Sequence[Timing]:
    """Ours into a container that runs, and out again; what others do with an image."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)))
        box = client.create(image="busybox")
        stack.callback(box.destroy)
        volume = stack.enter_context(client.volumes.create("bench", size="1G", overcommit=True))

        def ours() -> None:
            with volume.mount(box, PLACE):
                pass

        peers = volume_peers.mounters(volume_peers.image_with_root(directory), directory)
        return interleaved({"mount, umount": ours, **peers}, runs)


def copying(client: Client, disk: Path, runs: int) -> Sequence[Timing]:
    """Copies of 1 GiB with 200 MiB in it; mounted, it is frozen meanwhile. cp: of such a file, without other UUIDs."""
    with ExitStack() as stack:
        box = client.create(image="busybox")
        stack.callback(box.destroy)
        volume = stack.enter_context(client.volumes.create("bench", size="1G", overcommit=True))
        plain = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=disk)), "plain")
        with plain.open("wb") as file:
            file.truncate(1 << 30)
            file.write(os.urandom(USED_BYTES))
        copies: list[Volume] = []
        works: dict[str, Callable[[], object]] = {
            "snapshot": lambda: copies.append(volume.snapshot("copy", overcommit=True)),
            "clone": lambda: copies.append(volume.clone("copy", overcommit=True)),
        }
        with volume.mount(box, PLACE):
            box.run(["sh", "-c", f"head -c {USED_BYTES} /dev/urandom > {PLACE}/used; sync"])
            mounted = copied({f"{name}, mounted": work for name, work in works.items()}, copies, runs)
        works["cp --sparse=always"] = lambda: cp(plain)
        return [*copied(works, copies, runs), *mounted]


def copied(works: Mapping[str, Callable[[], object]], copies: "list[Volume]", runs: int) -> Sequence[Timing]:
    """Each in turn; that the copy is deleted again is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            times[name].append(timed_ms(work))
            while copies:
                copies.pop().delete()
    return [Timing(name, tuple(taken)) for name, taken in times.items()]


def cp(file: Path) -> None:
    """With its end on the disk, as ours are."""
    target = file.with_suffix(".copy")
    volume_peers.run("cp", "--sparse=always", "--reflink=auto", file, target)
    volume_peers.run("sync", target)
    target.unlink()


def copying_with_reflink(runs: int) -> Sequence[Timing]:
    """The same, where the disk with the state directory shares blocks: an xfs of our own; none without."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sysproc-bench-")))
        try:
            disk = stack.enter_context(ScratchDisk(directory, inner_bytes=REFLINK_BYTES))
        except NoSuchDisk as why:
            print(f"copies with reflink are left out: {why}")
            return []
        daemon = RunningDaemon()
        daemon.state_dir = disk.mounted / "state"
        stack.enter_context(daemon)
        return copying(stack.enter_context(Client(daemon.endpoint)), disk.mounted, runs)


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
        loop = Place(stack.enter_context(volume_peers.plain_ext4(host)))
        init = init_of(box)
        # The host's root is nobody on a volume.
        inside = Place(Path(f"/proc/{init}/root{PLACE}"), ("nsenter", f"--target={init}", "--user", "-S0", "-G0"))
        ways = product((False, True), JOBS)
        places = inside, Place(host), loop
        found = [one(name, words, by_bytes, direct, places) for direct, (name, words, by_bytes) in ways]
        client.volumes.unmount(box, PLACE, force=True)
        volume.delete()
    return found


def one(job: str, words: tuple[str, ...], by_bytes: bool, direct: bool, places: Sequence[Place]) -> Io:
    """One job in the volume, on the host's disk, and on the other loop device."""
    volume, host, loop = (fio(place, (*words, f"--direct={int(direct)}"), by_bytes) for place in places)
    return Io(job, direct, volume, host, "MB/s" if by_bytes else "op/s", loop)


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


def timings(client: Client, disk: Path, runs: int) -> "dict[str, Sequence[Timing]]":
    """All that is a table of contenders, by its title."""
    few = min(runs, MOST_COPIES)
    found = {
        "making volumes": making(client, runs),
        "mounting volumes": mounting(client, runs),
        "mounting, beside others": mounting_beside_others(client, disk, few),
        "copying 1 GiB, 200 MiB used": copying(client, disk, few),
        "copying 1 GiB, 200 MiB used, with reflink": copying_with_reflink(few),
    }
    return {title: several for title, several in found.items() if several}
