"""The jail of tools: a shell in the place of fsck says what there is for it, and what it cannot do.

The tools themselves are in tests/e2e/test_volume_checks.py and tests/e2e/test_compressed_volumes.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sysproc.isolation.seccomp_profiles import compile_profile
from sysproc.isolation.tool_jail import OUTPUT_BYTES

UID = 0x70000000
IMAGE = b"what is in the image".ljust(1 << 20, b"\0")
# In a process of its own: what enters a jail must have no threads.
PROGRAM = """
import json, sys
from sysproc.isolation.tool_jail import in_tool_jail
values, script, writable = json.loads(sys.argv[1])
with open(sys.argv[2], "rb+") as image:
    print(json.dumps(in_tool_jail(values, image.fileno(), ["sh", "-c", script], writable=writable)))
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    return path


def in_jail(image: Path, script: str, *, writable: bool = False) -> tuple[int, str]:
    """What the shell has said, and its exit status."""
    frame = image.parent / "frame"
    frame.mkdir(exist_ok=True)
    seccomp = compile_profile("strict", os.uname().machine).hex()
    part = {"offset": 0, "size": len(IMAGE)}
    values = part | {"frame": str(frame), "uid_base": UID, "uid_count": 65536, "seccomp_filter": seccomp}
    command = [sys.executable, "-c", PROGRAM, json.dumps([values, script, writable]), str(image)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    status, output = json.loads(done.stdout)
    return status, output


def test_there_are_programs_and_the_image_and_nothing_else_of_the_host(image: Path) -> None:
    assert in_jail(image, "head -c 20 /dev/image") == (0, "what is in the image")
    status, listed = in_jail(image, "cd /; for one in *; do test -L $one || echo $one; done; ls dev etc proc")
    assert status == 0
    programs = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    top, _, rest = listed.partition("dev:")
    assert set(top.split()) - programs == {"dev", "etc", "proc"}
    assert rest.split() == ["image", "null", "etc:", "mtab", "proc:", "mounts"]


def test_it_is_nobody_on_the_host_and_has_no_network(image: Path) -> None:
    """The image's node belongs to its own root: that is all it is root of."""
    assert in_jail(image, "id -u; stat -c %u /dev/image /usr") == (0, "0\n0\n65534\n")
    status, said = in_jail(image, "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1))' 2>&1")
    assert status != 0 and "unreachable" in said.lower()


@pytest.mark.parametrize("target", ["/usr/x", "/bin/x", "/usr/bin/sh"])
def test_it_cannot_write_to_the_programs(image: Path, target: str) -> None:
    status, said = in_jail(image, f"echo x > {target}")
    assert status != 0 and "Read-only" in said


def test_it_writes_to_the_image_only_where_that_is_to_be_changed(image: Path) -> None:
    script = "printf changed > /dev/image"
    status, _ = in_jail(image, script)
    assert status != 0 and image.read_bytes() == IMAGE
    assert in_jail(image, script, writable=True)[0] == 0
    assert image.read_bytes().startswith(b"changed in the image")


def test_it_makes_no_device_and_mounts_nothing(image: Path) -> None:
    for script in ("mknod /dev/sda b 8 0", "mount -t tmpfs none /etc && mknod /etc/sda b 8 0 && cat /etc/sda"):
        assert in_jail(image, script)[0] != 0


def test_of_what_it_says_the_beginning_is_kept(image: Path) -> None:
    status, said = in_jail(image, "echo first; yes | head -c 1000000")
    assert status == 0 and said.startswith("first\ny\n") and len(said) == OUTPUT_BYTES
