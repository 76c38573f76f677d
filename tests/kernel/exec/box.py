"""A place like a container, small and without the launcher: for tests of the C program and of exec alone.

    python -m tests.kernel.exec.box BASE     prints the pid of init, lives until its input ends, kills init

All namespaces, uids from BASE on, a root of busybox in a tmpfs, devpts, proc; PID 1 is the C program. Real containers
are made by `sysproc.isolation.builder`; what both have in common is what processes see.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from sysproc.isolation.native import program_path
from sysproc.linux.mounts import MNT_DETACH, MS_BIND, MS_PRIVATE, MS_REC, mount, pivot_root, umount2
from sysproc.linux.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone3,
    unshare,
    write_id_maps,
)

NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "urandom": (1, 9), "tty": (5, 0)}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody line\nuser:x:1000:1001:U:/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1001:\nwheel:x:10:root,user\naudio:x:29:user\n",
    "bin/no-interpreter": "#!/no/such/interpreter -x\n",
    "bin/plain-text": "just text\n",
    "bin/not-executable": "#!/bin/sh\n",
}


def populate(root: Path, base: int) -> None:
    """A root filesystem that is good enough for busybox."""
    for directory in ("bin", "dev/pts", "dev/shm", "proc", "tmp", "etc", "root", "home/user", "locked"):
        (root / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    shutil.copy(program_path(), root / "bin/static")
    for applet in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    for name, text in FILES.items():
        (root / name).write_text(text)
        (root / name).chmod(0o644 if name == "bin/not-executable" or name.startswith("etc") else 0o755)
    foreign = bytearray((root / "bin/static").read_bytes()[:4096])
    foreign[18:20] = (243).to_bytes(2, "little")
    (root / "bin/foreign").write_bytes(foreign)
    (root / "bin/foreign").chmod(0o755)
    (root / "locked").chmod(0o700)
    (root / "tmp").chmod(0o1777)
    for name, (major, minor) in NODES.items():
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        (root / "dev" / name).symlink_to(f"/proc/self/fd/{fd}")
    for path in (root, *root.rglob("*")):
        os.lchown(path, base, base)
    os.lchown(root / "home/user", base + 1000, base + 1001)


def become_init(root: Path, go: socket.socket) -> None:
    """In the new namespaces, once the ids are mapped."""
    go.recv(1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    unshare(CLONE_NEWNS | CLONE_NEWCGROUP)
    mount(root, root, flags=MS_BIND | MS_REC)
    mount("proc", root / "proc", fstype="proc")
    mount("devpts", root / "dev/pts", fstype="devpts", data="newinstance,ptmxmode=0666,mode=0620,gid=5")
    os.chdir(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.execv("/bin/static", ["init"])


def main(base: int) -> None:
    """See the module's docstring."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    with tempfile.TemporaryDirectory(prefix="sysproc-test-box-") as directory:
        mount("tmpfs", directory, fstype="tmpfs", data="mode=755")
        try:
            live(Path(directory), base)
        finally:
            umount2(directory, MNT_DETACH)


def live(root: Path, base: int) -> None:
    """From the birth of init to its death."""
    populate(root, base)
    ours, theirs = socket.socketpair()
    pid, _ = clone3(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
    if pid == 0:
        ours.close()
        become_init(root, theirs)
        os._exit(1)
    write_id_maps(pid, base, 65536)
    theirs.close()
    ours.send(b"G")
    ours.recv(1)  # ends at execve
    sys.stdout.write(f"{pid}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
