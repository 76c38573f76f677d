"""The disk image of the virtual machine: Debian with its own kernel and all packages that the tests import.

Built once by mmdebstrap and kept in a cache outside of the clone; the project itself is not in it but comes
at each boot, on a second disk (`tests.vm.payload`). Booting is in `tests.vm.machine`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]

SUITE = "bookworm"
PYTHON = "3.11"
PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "kmod"),
    *("python3", "busybox-static", "e2fsprogs", "fdisk", "iproute2", "procps"),
)
# Where the virtual environment is inside; the project's tree is unpacked beside it.
VENV = "opt/sysproc/venv"
SITE = f"{VENV}/lib/python{PYTHON}/site-packages"
SIZE = "3G"

UNIT = f"""\
[Unit]
Description=Runs what comes on the second disk, then powers off
Requires=dev-vdb.device dev-vdc.device
After=dev-vdb.device dev-vdc.device basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
Delegate=yes
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=PATH=/{VENV}/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
ExecStart=/bin/tar --extract --file=/dev/vdb --directory=/opt/sysproc
ExecStart=/bin/sh /opt/sysproc/run
"""
# They would only print into the tests' console or take their time.
MASKED = (
    "getty@.service",
    "serial-getty@.service",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "fstrim.timer",
)


@dataclass(frozen=True)
class Image:
    """What qemu boots. The disk is never written: each machine has a snapshot of its own."""

    disk: Path
    kernel: Path
    initrd: Path


def cache_directory() -> Path:
    """Outside of the clone, so that clones share it: SYSPROC_VM_CACHE, or below the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysproc" / "vm"
    return Path(os.environ.get("SYSPROC_VM_CACHE") or default)


def requirements() -> list[str]:
    """What both distributions depend on and what the tests need, less the distributions themselves."""
    projects = [
        tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"] for path in (".", "clients/python")
    ]
    lists = [project["dependencies"] for project in projects] + [projects[0]["optional-dependencies"]["test"]]
    return sorted({item for items in lists for item in items if not item.startswith("sysproc")})


def fingerprint() -> str:
    """Changes whenever the image would become another one (but not when Debian has updates)."""
    recipe = "\n".join([Path(__file__).read_text(), *requirements()])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def apt_sources() -> Iterator[tuple[str, list[str]]]:
    """What this machine installs from: the first URI and the suites of each source."""
    for file in Path("/etc/apt").glob("sources.list.d/*.sources"):
        for paragraph in file.read_text().split("\n\n"):
            fields = dict(line.split(":", 1) for line in paragraph.splitlines() if ":" in line and line[0] != "#")
            yield fields.get("URIs", "").strip().split(" ")[0], fields.get("Suites", "").split()
    for file in Path("/etc/apt").glob("sources.list"):
        for line in file.read_text().splitlines():
            if line.startswith("deb ") and len(words := line.split("]")[-1].removeprefix("deb ").split()) > 1:
                yield words[0], words[1:2]


def mirror() -> str:
    """The mirror that this machine uses for the suite, if it is a Debian of the same one."""
    return next((uri for uri, suites in apt_sources() if uri and SUITE in suites), "http://deb.debian.org/debian")


def run(*command: str | Path) -> None:
    """Run a step of the build; what it says is in the error if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def bootstrap(root: Path) -> None:
    """The Debian tree, without what nobody reads there."""
    options = [f"--include={','.join(PACKAGES)}", '--aptopt=Acquire::Languages "none"']
    options += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
    run("mmdebstrap", "--mode=root", "--variant=minbase", *options, SUITE, root, mirror())


def add_python_packages(root: Path) -> None:
    """A virtual environment with everything that is imported, compiled: emulated, that would be slow.

    pip runs out here, where its configuration and certificates are, and takes wheels for the Python inside.
    """
    run("chroot", root, "python3", "-m", "venv", "--without-pip", f"/{VENV}")
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(17, 37)]
    wheels = ("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", *platforms)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", root / SITE, *wheels, *requirements())
    run("chroot", root, "python3", "-m", "compileall", "-q", "-j2", f"/{SITE}", "/usr/lib/python3.11")


def add_unit(root: Path) -> None:
    """The service that runs the tests, and nothing that would come between."""
    units = root / "etc/systemd/system"
    (units / "sysproc-tests.service").write_text(UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "sysproc-tests.service").symlink_to("../sysproc-tests.service")
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    (root / "etc/hostname").write_text("debian\n")


def build(directory: Path) -> None:
    """Make the three files of an image in a directory; takes about a minute and a half."""
    with TemporaryDirectory(dir=directory, prefix="root-") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        bootstrap(root)
        add_python_packages(root)
        add_unit(root)
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.move(found, directory / name)
        run("mke2fs", "-q", "-t", "ext4", "-d", root, directory / "disk.ext4", SIZE)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One build at a time, also of several clones."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def image() -> Image:
    """The image as it should be now: from the cache, or built, in which case older ones are removed."""
    cache = cache_directory()
    wanted = cache / f"debian-12-{fingerprint()}"
    with locked(cache):
        if not wanted.exists():
            for old in (*cache.glob("debian-12-*"), *cache.glob("building-*")):
                shutil.rmtree(old)
            building = cache / f"building-{os.getpid()}"
            building.mkdir()
            build(building)
            building.rename(wanted)
    return Image(wanted / "disk.ext4", wanted / "vmlinuz", wanted / "initrd.img")
