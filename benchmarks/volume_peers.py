"""What others mount: `mount -o loop`, systemd-dissect, systemd-nspawn an image, podman a volume; and a plain ext4.

A volume of podman's is a bind mount of a directory, so it is the host's disk itself. One that is not there, or does not
run here, is left out and named (`benchmarks.left_out`). Our own side is in `benchmarks.volumes` and
`benchmarks.volume_io`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

from benchmarks.cascade import children_of
from benchmarks.left_out import LeftOut, Work, entered
from benchmarks.peers import unpack_busybox
from sysproc.isolation.mkfs import ext4_at
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.gpt import Partition, single_partition

IMAGE_BYTES, PLAIN_BYTES = 1 << 30, 2 << 30
PODMAN_RUN = "podman run --volume, /bin/true"
# Without a host that systemd runs, and what that has registered.
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit")


def run(*command: str | Path) -> str:
    """A command to its end: what it says."""
    done = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return done.stdout.decode(errors="replace").strip()


def image_with_root(directory: Path) -> Path:
    """An image as all of them take it: a table, one ext4 that is a root, busybox in it."""
    image = directory / "image.raw"
    gpt = single_partition(IMAGE_BYTES)
    with image.open("w+b") as file:
        fresh_vsf(file.fileno(), gpt)
    (part,) = gpt.partitions
    run(*ext4_at(str(image), part.offset_bytes, part.size_bytes, None))
    with loop_mounted(image, part, directory / "filled") as top:
        fill(top, directory)
    return image


def fill(top: Path, directory: Path) -> None:
    """What nspawn takes for a system."""
    shutil.copytree(unpack_busybox(directory), top, symlinks=True, dirs_exist_ok=True)
    (top / "usr").mkdir(exist_ok=True)
    (top / "etc").mkdir(exist_ok=True)
    (top / "etc/os-release").write_text("ID=busybox\n")


@contextmanager
def loop_mounted(image: Path, part: Partition, place: Path) -> Iterator[Path]:
    """As mount(8) does it."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,offset={part.offset_bytes},sizelimit={part.size_bytes}", image, place)
    try:
        yield place
    finally:
        run("umount", place)


@contextmanager
def plain_ext4(directory: Path) -> Iterator[Path]:
    """A directory on an ext4 with mke2fs's own defaults, in a sparse file."""
    image, place = directory / "plain.ext4", directory / "loop"
    with image.open("wb") as file:
        file.truncate(PLAIN_BYTES)
    run("mke2fs", "-q", "-t", "ext4", image)
    place.mkdir()
    run("mount", "-o", "loop", image, place)
    try:
        yield place
    finally:
        run("umount", place)


def mounters(image: Path, directory: Path) -> dict[str, Work]:
    """Each mounts it and unmounts it again, or starts /bin/true in it."""
    place = directory / "place"
    (part,) = single_partition(IMAGE_BYTES).partitions

    def plainly() -> None:
        with loop_mounted(image, part, place):
            pass

    def dissected() -> None:
        run("systemd-dissect", "--mount", image, place)
        run("systemd-dissect", "--umount", place)

    works: dict[str, Work] = {
        "mount -o loop, umount": plainly,
        "systemd-dissect --mount, --umount": dissected,
        "systemd-nspawn --image, /bin/true": lambda: run(*NSPAWN, f"--image={image}", "/bin/true"),
    }
    return works


def podman_runs(root: Path, stack: ExitStack, left_out: LeftOut) -> dict[str, Work]:
    """/bin/true in a container with a volume of podman's, which is there until the stack is closed."""
    if entered(stack, PODMAN_RUN, podman_volume(), left_out) is None:
        return {}
    command = ("podman", "run", "--rm", "--network=none", f"--volume={podman_name()}:/bench", "--rootfs", root)
    return {PODMAN_RUN: lambda: run(*command, "/bin/true")}


@contextmanager
def podman_volume() -> Iterator[Path]:
    """A volume of podman's: the directory of the host that its containers get as a bind mount."""
    run("podman", "volume", "create", podman_name())
    try:
        yield Path(run("podman", "volume", "inspect", "--format={{.Mountpoint}}", podman_name()))
    finally:
        run("podman", "volume", "rm", "--force", podman_name())


def podman_name() -> str:
    """Of the volume; no other run's."""
    return f"sysproc-bench-{os.getpid()}"


@contextmanager
def nspawned(directory: Path) -> Iterator[Path]:
    """The root that systemd-nspawn mounts of an image, in a container that runs until the end."""
    command = [*NSPAWN, "--console=pipe", f"--image={image_with_root(directory)}", "/bin/sh", "-c"]
    run(*command, "exit")  # says why it does not run
    with subprocess.Popen([*command, "echo ready; exec sleep 1000000"], stdout=subprocess.PIPE) as process:
        try:
            cast("IO[bytes]", process.stdout).readline()
            (leader,) = children_of(process.pid)
            yield Path(f"/proc/{leader}/root")
        finally:
            process.terminate()
