"""All that tar keeps of a file is in the image: what GNU tar wrote of a real tree is compared with it, file by file.

What cannot be kept is told. How single records are read is in `tests/unit/isolation/test_tar_reader.py`.
"""

import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sysproc.isolation.acl_text import acl_value
from sysproc_client import Client
from tests.archives import BUSYBOX
from tests.e2e.conftest import Sysproc
from tests.e2e.daemon import RunningDaemon
from tests.e2e.inside import script_inside
from tests.e2e.root_files import root_of

MODES = {"plain": 0o644, "setuid": 0o4755, "setgid": 0o2755, "secret": 0o000, "odd": 0o641}
# cap_net_raw=ep: revision 2, effective; permitted and inheritable, twice (capabilities(7)).
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
ACCESS = "user::rw-,user:1234:rwx,group::r--,group:4321:r-x,mask::rwx,other::---"
DEFAULT = "user::rwx,user:1234:r-x,group::r-x,mask::r-x,other::---"
WARNED = (b"1 device node was left out", b"trusted.note (on 1)")
SPARSE_BYTES, SPARSE_DATA = 30 << 20, {4096: b"a" * 5000, 10 << 20: b"b" * 4096, 20 << 20: bytes(4096)}
LONG = "n" * 200


def acl(text: str) -> bytes:
    """As the kernel has it."""
    return acl_value(text.encode(), lambda *_: 0)


def add_files(top: Path) -> None:
    """Owners, modes, sizes, links."""
    for number, (name, mode) in enumerate(MODES.items()):
        (top / name).write_bytes(name.encode() * number)
        os.chown(top / name, 1000 + number, 60000 + number)
        (top / name).chmod(mode)
    (top / "sticky").mkdir()
    (top / "sticky").chmod(0o1777)
    deep = top.joinpath(*[LONG] * 4)
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    os.link(deep / "file", top / "hard")
    os.symlink("/".join([LONG] * 4), top / "long-link")
    os.lchown(top / "long-link", 7, 8)
    os.mkfifo(top / "fifo", 0o620)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (top / "sparse").open("wb") as file:
        for offset, data in SPARSE_DATA.items():
            file.seek(offset)
            file.write(data)
        file.truncate(SPARSE_BYTES)


def add_attributes(top: Path) -> None:
    """Of each kind, on a file; ACLs also on a directory in which something is."""
    os.setxattr(top / "plain", "user.note", b"\0\xff=\n")
    os.setxattr(top / "plain", "user.empty", b"")
    os.setxattr(top / "odd", "trusted.note", b"of the host's root")
    os.setxattr(top / "setuid", "security.capability", CAPABILITY)
    os.setxattr(top / "odd", "system.posix_acl_access", acl(ACCESS))
    os.setxattr(top / LONG, "user.note", b"of a directory")
    os.setxattr(top / LONG, "system.posix_acl_access", acl(ACCESS))
    os.setxattr(top / LONG, "system.posix_acl_default", acl(DEFAULT))


def set_times(top: Path) -> None:
    """To the nanosecond, also before 1970; of links themselves, of directories last."""
    paths = sorted(top.rglob("*"), key=lambda path: len(path.parts), reverse=True)
    for number, path in enumerate(paths):
        moment = (number * 100_000_000 - 500_000_000) * 10**9 + 123_456_789
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with all of it, and what is needed to start."""
    top = tmp_path / "tree"
    (top / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, top / "bin/busybox")
    (top / "bin/sh").symlink_to("busybox")
    add_files(top)
    try:
        add_attributes(top)
    except OSError as failure:
        pytest.skip(f"the filesystem of {tmp_path} has no such attributes: {failure}")
    set_times(top)
    return top


def look(path: Path) -> Mapping[str, Any]:
    """What is compared of a file. The kind and the permissions in one; contents of a file, target of a link."""
    found = path.lstat()
    looked: dict[str, Any] = {
        name: getattr(found, f"st_{name}") for name in ("mode", "uid", "gid", "nlink", "mtime_ns")
    }
    if stat.S_ISLNK(found.st_mode):
        looked["target"] = os.readlink(path)
    if stat.S_ISREG(found.st_mode):
        looked["size"], looked["holes"] = found.st_size, found.st_blocks * 512 < found.st_size // 100
        looked["contents"] = path.read_bytes()
    names = [name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("trusted.")]
    looked["attributes"] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return looked


def looked_at(top: Path) -> Mapping[str, Mapping[str, Any]]:
    """Everything below, less what a start makes and what no image has."""
    made = {"dev", "proc", "sys", "run", "tmp", "etc", "lost+found", "null"}
    paths = (path for path in top.rglob("*") if path.relative_to(top).parts[0] not in made)
    return {str(path.relative_to(top)): look(path) for path in paths}


TAR = ("--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner")
# GNU's own format has neither attributes nor ACLs nor nanoseconds: those are in POSIX's.
FORMS = {f"sparse-{version}": ("--sparse", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")}


def packed(tree: Path, form: str) -> Path:
    """By GNU tar; or the tree itself."""
    if form == "folder":
        return tree
    version = subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout
    if b"GNU" not in version:
        pytest.skip("there is no GNU tar")
    tar = tree.with_name("tree.tar")
    subprocess.run(["tar", "-cf", str(tar), "--format=posix", *TAR, *FORMS[form], "-C", str(tree), "."], check=True)
    return tar


@pytest.mark.parametrize("form", [*FORMS, "folder"])
def test_all_metadata_is_kept_or_told(
    client: Client, daemon: RunningDaemon, sysproc: Sysproc, tree: Path, form: str
) -> None:
    done = sysproc("image", "import", "kept", str(packed(tree, form)))
    assert done.returncode == 0, done.stderr
    assert all(words in done.stderr for words in WARNED), done.stderr
    box = client.create(image="kept", start=False)
    with root_of(daemon, box) as root:
        there, wanted = looked_at(Path(root)), looked_at(tree)
        assert there.keys() == wanted.keys()
        for name, expected in wanted.items():
            assert there[name] == expected, name
    box.destroy()
    client.images.delete("kept")


def test_what_is_not_in_an_image_is_told_later_too(client: Client, sysproc: Sysproc, tree: Path) -> None:
    client.images.import_("kept", packed(tree, "sparse-1.0"))
    box = client.create(image="kept", name="user", start=False)
    told = sysproc("image", "inspect", "kept").stdout
    assert all(words in told for words in (*WARNED, box.id.encode(), b"user", b"ago)"))
    image = client.images.get("kept").image
    assert (image.skipped_devices, dict(image.skipped_attributes)) == (1, {"trusted.note": 1})
    assert image.entries > len(MODES)
    refused = sysproc("image", "delete", "kept")
    assert refused.returncode == 1 and f"{box.id} (user)".encode() in refused.stderr
    box.destroy()
    client.images.delete("kept")


def test_inside_a_container_nobody_is_told_who_else_uses_an_image(client: Client) -> None:
    asking, other = client.create(name="asking"), client.create(name="other")
    script = "got = client.images.get('busybox'); answer = [got.image.name, got.image.containers, len(got.users)]"
    assert script_inside(asking, script) == ["busybox", 0, 0]
    got = client.images.get("busybox")
    assert [one.container_name for one in got.users] == ["asking", "other"] and got.users[1].container_id == other.id
