"""What a result was measured on: the machine, its kernel, and the versions of everything that was timed.

Only facts that somebody needs who compares two results belong here.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

DISTRIBUTIONS = ("sysproc", "grpcio", "protobuf", "sqlalchemy", "uvloop")
PEERS = ("crun", "runc", "bwrap", "systemd-dissect", "systemd-nspawn", "podman", "fio", "ghz")


def machine() -> dict[str, str]:
    """Each fact by its name, in words."""
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": processor(),
        "processors": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "cgroups": "version 2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "version 1 or hybrid",
        "filesystem of the state": filesystem_of(Path(tempfile.gettempdir())),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of what was timed, and of what it was timed with; peers that are not installed are left out."""
    ours = {name: version(name) for name in DISTRIBUTIONS}
    return ours | {name: said for name in PEERS if (said := version_of_command(name))}


def processor() -> str:
    """Its model, as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def filesystem_of(directory: Path) -> str:
    """The type of what is mounted there (proc_pid_mountinfo(5))."""
    device = os.stat(directory).st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return after.split()[0]
    return "unknown"


def version_of_command(name: str) -> str:
    """The first line that a command says of its version; empty where it is not installed."""
    if shutil.which(name) is None:
        return ""
    said = subprocess.run([name, "--version"], check=False, capture_output=True, text=True)
    return (said.stdout + said.stderr).strip().splitlines()[0]
