"""What others mount of an image: `mount -o loop`, systemd-dissect, systemd-nspawn; and what cp copies of one.

A volume of podman's is a bind mount of a directory, so it is the host's disk itself. Each peer is tried first: one that
is not there, or does not run here, is left out and named. Our own side is in `benchmarks.volumes`.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers import unpack_busybox
from sysproc.isolation.mkfs import ext4_at
from sysproc.storage.vsf.clone import fresh_vsf
from sysproc.storage.vsf.gpt import Partition, single_partition

Work = Callable[[], object]
IMAGE_BYTES, PLAIN_BYTES = 1 << 30, 2 << 30
# Without a host that systemd runs, and what that has registered.
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit")


def run(*command: str | Path) -> None:
    """A command to its end."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


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
    """Each mounts it and unmounts it again, or starts /bin/true in it; those that run here."""
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
    return {name: work for name, work in works.items() if is_usable(name, work)}


def is_usable(name: str, work: Work) -> bool:
    """Whether it runs here; if not, why is said."""
    try:
        work()
    except FileNotFoundError as failure:
        print(f"{name} is left out: {failure}")
    except subprocess.CalledProcessError as failure:
        print(f"{name} is left out: {failure.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
    else:
        return True
    return False
