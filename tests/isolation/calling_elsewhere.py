"""A caller of one container at the API socket of another, or at the host's: prints what WhoAmI answers.

    python -m tests.isolation.calling_elsewhere INIT_PID SOCKET

As if somebody had passed the socket on: it has the container's cgroups and its root's uid, but keeps the capabilities
of the host, so that no path is closed to it. Used by `tests/isolation/test_api_socket.py`.
"""

import os
import sys
from pathlib import Path

import grpc

from sysproc.linux.prctl import SECBIT_NO_SETUID_FIXUP, set_securebits
from tests.e2e.calling_inside import call, cgroup_directories

WHOAMI = "/nightos.sysproc.v1.SystemService/WhoAmI"


def main() -> None:
    """See the module's docstring."""
    init, path = int(sys.argv[1]), sys.argv[2]
    base = int(Path(f"/proc/{init}/uid_map").read_text().split()[1])
    for directory in cgroup_directories(init):
        (directory / "cgroup.procs").write_text(str(os.getpid()))
    set_securebits(SECBIT_NO_SETUID_FIXUP)
    os.setresgid(base, base, base)
    os.setresuid(base, base, base)
    with grpc.insecure_channel(f"unix://{path}") as channel:
        sys.stdout.write(call(channel, WHOAMI))


if __name__ == "__main__":
    main()
