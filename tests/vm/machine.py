"""A virtual machine of qemu, emulated (TCG), that runs one payload and powers off.

    host                                        guest
      payload.tar  ── second disk, raw ─────▶     unpacked, run
      results.tar  ◀── third disk, raw ──────     JUnit files, exit status
      root.tar     ── fourth disk, if given ─▶    the Debian root of `tests.debian.root`
      console      ◀── serial port ──────────     what the tests print

What is inside comes from `tests.vm.image` and `tests.vm.payload`; which tests run is said in the tests.
"""

import subprocess
import sys
import tarfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm.image import Image
from tests.vm.payload import write_payload

RESULTS_SIZE = 64 << 20
MEMORY = "3G"


@dataclass(frozen=True)
class Results:
    """What came back: the exit status (None: it never got so far), the JUnit files, and what the machine is.

    facts: the kernel's release, the type of the filesystem at /sys/fs/cgroup, the name of PID 1.
    """

    status: int | None
    reports: tuple[Path, ...] = ()
    facts: tuple[str, ...] = ()


def disk(path: Path, *, snapshot: bool = False) -> tuple[str, str]:
    """The options for one more virtio disk, raw."""
    return "-drive", f"file={path},format=raw,if=virtio,cache=unsafe,snapshot={'on' if snapshot else 'off'}"


def qemu(image: Image, payload: Path, results: Path, root: Path | None) -> list[str]:
    """The command line: no network, no display, no firmware menus."""
    fourth = () if root is None else disk(root, snapshot=True)
    kernel = "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 net.ifnames=0"
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *(
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi,tb-size=512",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            MEMORY,
        ),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel),
        *(*disk(image.disk, snapshot=True), *disk(payload), *disk(results), *fourth),
        *("-serial", "stdio", "-device", "virtio-rng-pci"),
    ]


def follow(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Show the console until the machine is off; one that takes too long is switched off."""
    clock = threading.Timer(timeout_s, process.kill)
    clock.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line.decode(errors="replace").replace("\r", ""))
            sys.stdout.flush()
    finally:
        clock.cancel()
        process.kill()
        process.wait()


def read_results(disk_file: Path, directory: Path) -> Results:
    """Unpack what the guest left on its third disk."""
    try:
        with tarfile.open(disk_file, "r:") as archive:
            archive.extractall(directory, filter="data")
    except tarfile.ReadError:
        return Results(None)
    if not (directory / "facts").exists():  # nothing was written: an empty disk is an empty archive
        return Results(None)
    facts = (directory / "facts").read_text().split()
    return Results(int((directory / "status").read_text()), tuple(sorted(directory.glob("*.xml"))), tuple(facts))


def run_tests(
    image: Image, arguments: Sequence[str], *, directory: Path, timeout_s: float, root: Path | None = None
) -> Results:
    """Boot, run `python -m tests` with the arguments, power off; the console goes to standard output.

    root: the tar of a Debian root, for tests that want one.
    """
    payload = directory / "payload.tar"
    write_payload(payload, arguments)
    return run_payload(image, payload, directory=directory, timeout_s=timeout_s, root=root)


def run_script(image: Image, script: Path, *others: Path, directory: Path, timeout_s: float) -> Results:
    """Boot, run a script of sh that has these files beside it, power off. It writes the results itself."""
    payload = directory / "payload.tar"
    with tarfile.open(payload, "w") as archive:
        archive.add(script, "run")
        for file in others:
            archive.add(file, file.name)
    return run_payload(image, payload, directory=directory, timeout_s=timeout_s)


def run_payload(image: Image, payload: Path, *, directory: Path, timeout_s: float, root: Path | None = None) -> Results:
    """Boot, run what is on the second disk, power off."""
    results = directory / "results.raw"
    with results.open("wb") as file:
        file.truncate(RESULTS_SIZE)
    process = subprocess.Popen(
        qemu(image, payload, results, root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    follow(process, timeout_s)
    return read_results(results, directory / "results")
