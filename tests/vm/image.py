"""The disk image of the virtual machine: Debian with its own kernel and all packages that the tests import.

Built once by mmdebstrap and kept in a cache outside of the clone (`tests.debian`); the project itself is not in it
but comes at each boot, on a second disk (`tests.vm.payload`). Booting is in `tests.vm.machine`.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.debian.bootstrap import PYTHON, ROOT, bootstrap, dependencies, install_wheels, run
from tests.debian.cache import cached

PACKAGES = (
    *("systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "kmod"),
    *("python3", "busybox-static", "e2fsprogs", "fdisk", "iproute2", "procps"),
    # What volumes are made of, and what other tools say of them.
    *("btrfs-progs", "xfsprogs", "erofs-utils", "squashfs-tools", "cryptsetup-bin", "systemd-container"),
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


def add_python_packages(root: Path) -> None:
    """A virtual environment with everything that is imported, compiled: emulated, that would be slow."""
    run("chroot", root, "python3", "-m", "venv", "--without-pip", f"/{VENV}")
    install_wheels(root, SITE, requirements())


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
    (root / "etc/hosts").write_text("127.0.0.1 localhost debian\n::1 localhost\n")


def build(directory: Path) -> None:
    """Make the three files of an image in a directory; takes about a minute and a half."""
    with TemporaryDirectory(dir=directory, prefix="root-") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        bootstrap(root, PACKAGES)
        add_python_packages(root)
        add_unit(root)
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.move(found, directory / name)
        run("mke2fs", "-q", "-t", "ext4", "-d", root, directory / "disk.ext4", SIZE)


def requirements() -> list[str]:
    """What both distributions and the tests need."""
    return sorted(
        dependencies(".", extra="test")
        | dependencies("clients/python", extra="cert")
        | dependencies("clients/python", extra="yaml")
    )


def recipe() -> list[str]:
    """What the image depends on."""
    texts = [Path(__file__).read_text(), (ROOT / "tests/debian/bootstrap.py").read_text()]
    return [*texts, *requirements()]


def image() -> Image:
    """The image as it should be now."""
    wanted = cached("debian-12", recipe(), build)
    return Image(wanted / "disk.ext4", wanted / "vmlinuz", wanted / "initrd.img")
