"""Volumes: how long it takes to make, mount and copy one, and what memory one takes.

I/O on them is in `benchmarks.volume_io`, what others mount in `benchmarks.volume_peers`. `python -m
benchmarks.volumes_alone` measures nothing but these.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks import volume_peers
from benchmarks.left_out import LeftOut, leave_out, usable
from benchmarks.measure import Timing, interleaved, timed_ms
from sysproc_client import Client, Container, Volume
from tests.crash.scratch_disk import NoSuchDisk, ScratchDisk
from tests.e2e.daemon import RunningDaemon

PLACE = "/bench"
MOUNTS = 20
USED_BYTES, REFLINK_BYTES, MOST_COPIES = 200 << 20, 4 << 30, 10


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


def mounting_beside_others(client: Client, disk: Path, runs: int, left_out: LeftOut) -> Sequence[Timing]:
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
        podman = volume_peers.podman_runs(directory / "rootfs", stack, left_out)
        return interleaved({"mount, umount": ours, **usable(peers | podman, left_out)}, runs)


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


def copying_with_reflink(runs: int, left_out: LeftOut) -> Sequence[Timing]:
    """The same, where the disk with the state directory shares blocks: an xfs of our own; none without."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sysproc-bench-")))
        try:
            disk = stack.enter_context(ScratchDisk(directory, inner_bytes=REFLINK_BYTES))
        except NoSuchDisk as why:
            leave_out(left_out, "all of it", why)
            return []
        daemon = RunningDaemon()
        daemon.state_dir = disk.mounted / "state"
        stack.enter_context(daemon)
        return copying(stack.enter_context(Client(daemon.endpoint)), disk.mounted, runs)


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


def timings(client: Client, disk: Path, runs: int, left_out: Callable[[str], LeftOut]) -> "dict[str, Sequence[Timing]]":
    """All that is a table of contenders, by its title."""
    few = min(runs, MOST_COPIES)
    others, shared = "mounting, beside others", "copying 1 GiB, 200 MiB used, with reflink"
    found = {
        "making volumes": making(client, runs),
        "mounting volumes": mounting(client, runs),
        others: mounting_beside_others(client, disk, few, left_out(others)),
        "copying 1 GiB, 200 MiB used": copying(client, disk, few),
        shared: copying_with_reflink(few, left_out(shared)),
    }
    return {title: several for title, several in found.items() if several}
