"""`python -m benchmarks.encrypted_volume [DIRECTORY]`: fio in ext4 on a loop device, encrypted by our process or plain.

Needs root, fio and 2 GiB in the directory (not a tmpfs). Contenders take turns; what is printed are medians.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sysproc.linux.loop import LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO, loop_configure
from sysproc.linux.mounts import new_mount
from sysproc.storage.decrypted.opening import start
from sysproc.storage.luks.key_derivation import Cost
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import format_volume

RUNS = 3
SIZE = 1 << 30
QUEUE = "--direct=1 --ioengine=libaio"
RANDOM = f"--bs=4k --size=512M {QUEUE} --iodepth=8 --runtime=4 --time_based"
JOBS = {
    "write, MiB/s": "--rw=write --bs=1M --size=512M --end_fsync=1",
    "write direct, MiB/s": f"--rw=write --bs=1M --size=512M {QUEUE} --iodepth=4",
    "read, MiB/s": "--rw=read --bs=1M --size=512M",
    "read direct, MiB/s": f"--rw=read --bs=1M --size=512M {QUEUE} --iodepth=4",
    "write 4k + fdatasync, a second": "--rw=write --bs=4k --size=64M --fdatasync=1 --runtime=4 --time_based",
    "random read 4k direct, a second": f"--rw=randread {RANDOM}",
    "random write 4k direct, a second": f"--rw=randwrite {RANDOM}",
}


@contextmanager
def plain(fd: int, flags: int) -> Iterator[str]:
    """A loop device on the file itself."""
    device_fd, device = loop_configure(fd, offset=0, size=0, flags=LO_FLAGS_AUTOCLEAR | flags, block_size=4096)
    try:
        yield device
    finally:
        os.close(device_fd)


@contextmanager
def encrypted(fd: int, flags: int) -> Iterator[str]:
    """A loop device on what our process decrypts."""
    region = Region.whole(fd)
    format_volume(region, memoryview(b"benchmark"), cost=Cost(4, 32, 1))
    reader, writer = os.pipe()
    os.write(writer, b"benchmark")
    os.close(writer)
    with ExitStack() as stack:
        stack.callback(os.close, reader)
        decrypted = start(region, reader)
        stack.callback(os.waitpid, decrypted.pid, 0)
        device_fd, device = decrypted.attach(flags=LO_FLAGS_AUTOCLEAR | flags)
        os.close(decrypted.fd)
        stack.callback(os.close, device_fd)
        yield device
        peak = next(line for line in Path(f"/proc/{decrypted.pid}/status").read_text().splitlines() if "VmHWM" in line)
        print(f"memory of the process: {peak}", file=sys.stderr)


Contender = Callable[[int, int], AbstractContextManager[str]]
CONTENDERS: dict[str, tuple[Contender, int]] = {
    "plain, buffered": (plain, 0),
    "plain, direct": (plain, LO_FLAGS_DIRECT_IO),
    "encrypted, buffered": (encrypted, 0),
    "encrypted, direct (ours)": (encrypted, LO_FLAGS_DIRECT_IO),
}


def fio(device: str) -> dict[str, float]:
    """All jobs on a fresh ext4 there."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "nodiscard,lazy_itable_init=0", device], check=True)
    mount_fd = new_mount("ext4", {"source": device})
    try:
        return {name: one_job(f"/proc/self/fd/{mount_fd}/file", mount_fd, options) for name, options in JOBS.items()}
    finally:
        os.close(mount_fd)


def one_job(path: str, mount_fd: int, options: str) -> float:
    """MiB a second, or operations."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    command = ["fio", "--name=job", f"--filename={path}", "--output-format=json", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[mount_fd])
    result = json.loads(done.stdout)["jobs"][0]
    side = result["read" if "read" in options else "write"]
    return float(side["iops"] if "4k" in options else side["bw"] / 1024)


def main(directory: str) -> None:
    """Take turns, and print."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(RUNS):
        for name, (contender, flags) in CONTENDERS.items():
            with tempfile.TemporaryFile(dir=directory) as file:
                os.ftruncate(file.fileno(), SIZE)
                with contender(file.fileno(), flags) as device:
                    found[name].append(fio(device))
    drawn = Table("", *CONTENDERS, title=f"ext4 on a loop device, medians of {RUNS}", title_justify="left")
    for job in JOBS:
        drawn.add_row(job, *(f"{statistics.median(run[job] for run in runs):.0f}" for runs in found.values()))
    Console().print(drawn)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "/var/tmp")
