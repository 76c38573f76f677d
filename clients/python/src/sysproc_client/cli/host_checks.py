"""What can be seen of a host without the service: socket, unit, kernel, cgroups, namespaces, devices, tools.

Nothing is changed and nothing is run but `systemctl show`. What the service says of its kernel, and how all of it is
told, is in `sysproc_client.cli.doctor`.
"""

import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FINE, NOTE, WARNING, ERROR = SEVERITIES = ("fine", "note", "warning", "error")
OLDEST_KERNEL = (6, 1)
_UNIT = "sysprocd.service"
_SYSTEMCTL_S = 10
# Tool, the package that has it, what is not there without it, how bad that is.
TOOLS = (
    ("mke2fs", "e2fsprogs", "roots of containers and volumes of ext4", ERROR),
    ("busybox", "busybox-static", "the built-in image `busybox`", WARNING),
    ("mkfs.btrfs", "btrfs-progs", "volumes of btrfs", WARNING),
    ("mkfs.xfs", "xfsprogs", "volumes of xfs", WARNING),
    ("mkfs.erofs", "erofs-utils", "volumes of erofs", WARNING),
    ("mksquashfs", "squashfs-tools", "volumes of squashfs", WARNING),
)
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Finding:
    """severity: one of SEVERITIES; what: in plain words; to_do: empty where nothing is."""

    name: str
    severity: str
    what: str
    to_do: str = ""


@dataclass(frozen=True)
class Host:
    """Where its files are and what it says of itself; another one in tests."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    release: str = field(default_factory=platform.release)
    path: str = field(default_factory=lambda: f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")

    def read(self, name: str) -> str:
        """A small file; empty if it is not there or closed to us."""
        try:
            return self.at(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def at(self, name: str) -> Path:
        """A path of the host's."""
        return self.root / name.lstrip("/")


def look_at(host: Host, endpoint: str, *, answered: bool) -> Iterator[Finding]:
    """Everything that can be seen from here. answered: the service did, and has told of its kernel itself."""
    if not answered:
        yield from socket_of(host, endpoint)
        yield from unit(host)
        for check in (kernel, cgroups, user_namespaces, loop_devices):
            yield check(host)
    yield apparmor(host)
    yield fuse(host)
    yield from tools(host)


# -- the way to the service


def socket_of(host: Host, endpoint: str) -> Iterator[Finding]:
    """Whether it is there, whose it is, who listens."""
    name = endpoint.removeprefix("unix:").removeprefix("//")
    try:
        found = host.at(name).stat()
    except FileNotFoundError:
        yield Finding("socket", ERROR, f"There is no {name}.", "Start sysprocd, or name its socket with --endpoint.")
        return
    except PermissionError:
        yield Finding("socket", ERROR, f"The directory of {name} is closed to uid {host.uid}.", "Be root.")
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Finding("socket", ERROR, f"{name} is no socket.", "Name the socket of sysprocd with --endpoint.")
        return
    yield Finding("socket", FINE, f"{name} belongs to uid {found.st_uid} and gid {found.st_gid}.")
    yield who_listens(host, name)


def who_listens(host: Host, name: str) -> Finding:
    """By connecting, and asking the kernel for the other end."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(host.at(name)))
        except ConnectionRefusedError:
            return Finding("listener", ERROR, f"Nobody listens on {name}: sysprocd has ended.", "Start sysprocd.")
        except PermissionError:
            return Finding(
                "listener", ERROR, f"uid {host.uid} may not connect to {name}.", "Be root, or in the group `sysproc`."
            )
        except OSError as failure:
            return Finding("listener", ERROR, f"{name}: {failure.strerror}.", "Look at the log of sysprocd.")
        pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
    program = host.read(f"/proc/{pid}/comm") or "a process that cannot be seen from here"
    return Finding("listener", NOTE, f"{name} was opened by pid {pid}, {program}.", "Is that sysprocd? See its log.")


def unit(host: Host) -> Iterator[Finding]:
    """What systemd says of the service, where it runs."""
    if not host.at("/run/systemd/system").is_dir():
        return
    call = ["systemctl", "show", _UNIT, "--property=LoadState,ActiveState,Result"]
    try:
        said = subprocess.run(call, capture_output=True, text=True, timeout=_SYSTEMCTL_S, check=False).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return
    state = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if state.get("LoadState") == "not-found":
        yield Finding("unit", NOTE, f"systemd has no {_UNIT}.", "sysprocd can be started by hand, as root.")
    elif state.get("ActiveState") != "active":
        what = f"{_UNIT} is {state.get('ActiveState', 'unknown')} ({state.get('Result', 'unknown')})."
        yield Finding("unit", ERROR, what, f"systemctl start {_UNIT}; journalctl -u {_UNIT} says why it ended.")
    else:
        yield Finding("unit", FINE, f"{_UNIT} is active.")


# -- the kernel


def kernel(host: Host) -> Finding:
    """Its version."""
    numbers = [int(part) for part in host.release.partition("-")[0].split(".")[:2] if part.isdecimal()]
    if tuple(numbers) >= OLDEST_KERNEL:
        return Finding("kernel", FINE, f"Linux {host.release} is new enough.")
    return Finding("kernel", ERROR, f"Linux {host.release} is too old.", "Install 6.1 or newer: Debian 12's.")


def cgroups(host: Host) -> Finding:
    """Which versions are mounted, and whether limits have their controllers."""
    mounts = [line.split() for line in host.read("/proc/self/mounts").splitlines()]
    unified = [one[1] for one in mounts if len(one) > 2 and one[2] == "cgroup2"]
    controllers = {word for one in mounts if len(one) > 3 and one[2] == "cgroup" for word in one[3].split(",")}
    for mount in unified:
        controllers |= {*host.read(f"{mount}/cgroup.controllers").split()}
    if not unified and not controllers:
        return Finding(
            "cgroups", ERROR, "No control groups are mounted.", "mount -t cgroup2 cgroup2 /sys/fs/cgroup, as root."
        )
    if missing := sorted({"memory", "cpu", "pids"} - controllers):
        what = f"There is no controller of {', '.join(missing)}: such limits are refused."
        return Finding(
            "cgroups", WARNING, what, "See cgroup_disable= in /proc/cmdline, and the kernel's configuration."
        )
    return Finding("cgroups", FINE, "memory, cpu and pids can be limited.")


def user_namespaces(host: Host) -> Finding:
    """Whether the kernel has them, and lets somebody make one."""
    if not host.at("/proc/self/ns/user").exists():
        return Finding("user namespaces", ERROR, "The kernel has none.", "It needs CONFIG_USER_NS=y.")
    if host.read("/proc/sys/user/max_user_namespaces") == "0":
        return Finding(
            "user namespaces", ERROR, "There may be none at once.", "sysctl -w user.max_user_namespaces=15000"
        )
    return Finding("user namespaces", FINE, "They can be made.")


def loop_devices(host: Host) -> Finding:
    """Roots and volumes are files behind such devices."""
    if host.at("/dev/loop-control").exists():
        return Finding("loop devices", FINE, "They can be made.")
    return Finding("loop devices", ERROR, "There is no /dev/loop-control.", "modprobe loop, as root.")


def apparmor(host: Host) -> Finding:
    """What it forbids to programs that are not root; the service is."""
    if host.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        what = "AppArmor keeps programs that are not root from user namespaces. sysprocd is root: it does not matter,"
        return Finding("apparmor", NOTE, f"{what} unless it is confined.", "Leave it so.")
    on = host.read("/sys/module/apparmor/parameters/enabled") == "Y"
    return Finding("apparmor", FINE, "AppArmor is on, and in nobody's way." if on else "AppArmor is off.")


def fuse(host: Host) -> Finding:
    """By which encrypted volumes are opened where there is no dm-crypt."""
    if host.at("/dev/fuse").exists() or host.at("/dev/mapper/control").exists():
        return Finding("encrypted volumes", FINE, "They can be opened.")
    return Finding("encrypted volumes", WARNING, "There is neither /dev/fuse nor dm-crypt.", "modprobe fuse, as root.")


# -- tools


def tools(host: Host) -> Iterator[Finding]:
    """The programs that the service calls."""
    for name, package, what, severity in TOOLS:
        if shutil.which(name, path=host.path):
            yield Finding(name, FINE, f"It is there, for {what}.")
        else:
            yield Finding(name, severity, f"It is not there; without it there are no {what}.", f"apt install {package}")
