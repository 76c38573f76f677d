"""A caller that is a process of a container, though its Python is the host's: prints what it was told, as JSON.

    python -m tests.e2e.calling_inside INIT_PID UID METHOD…       < nothing
    python -m tests.e2e.calling_inside INIT_PID UID               < a script that sets `answer`

It joins the container's cgroups and mount namespace and becomes one of its users. Then it calls the methods without a
request on /run/sysproc/sysproc.sock there, or runs the script, which has a client of that socket as `client`. Used by
`tests.e2e.test_callers` and `tests.e2e.test_authority`.
"""

import json
import os
import sys
from pathlib import Path

import grpc
import grpc._channel  # what grpcio would import later could not be found from inside any more

from nightos.sysproc.v1 import system_service_pb2
from sysproc.linux.namespaces import CLONE_NEWNS, setns
from sysproc_client import Client, SysprocError

SOCKET = "unix:///run/sysproc/sysproc.sock"


def cgroup_directories(pid: int) -> list[Path]:
    """Where a process is, in every hierarchy that is mounted here."""
    paths = [line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    found = []
    for mount, filesystem in mounts:
        kind, options = filesystem.split()[0], set(filesystem.split()[-1].split(","))
        for controllers, path in paths:
            if (kind == "cgroup2" and not controllers) or (
                kind == "cgroup" and controllers and set(controllers.split(",")) <= options
            ):
                found.append(Path(mount.split()[4] + path))
    return found


def enter(init: int, uid: int) -> None:
    """Become a process of the container, as far as the service can see."""
    namespace = os.open(f"/proc/{init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    for directory in cgroup_directories(init):
        (directory / "cgroup.procs").write_text(str(os.getpid()))
    setns(namespace, CLONE_NEWNS)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def call(channel: grpc.Channel, method: str) -> str:
    """The name of the status, and for WhoAmI what it says."""
    try:
        unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        answer = unary(b"", timeout=20)
    except grpc.RpcError as error:
        return str(error.code().name)
    if not method.endswith("/WhoAmI"):
        return "OK"
    caller = system_service_pb2.WhoAmIResponse.FromString(answer)
    return f"OK {caller.container_id:016x} {caller.uid} {caller.container_name}"


def run_script(script: str) -> object:
    """What a script leaves as `answer`; an error of the service ends it and is the answer: its class and reason."""
    known: dict[str, object] = {"answer": None, "SysprocError": SysprocError}
    with Client(SOCKET) as client:
        try:
            known["client"] = client
            exec(script, known)  # one namespace, so that functions of the script see its names
        except SysprocError as error:
            return [type(error).__name__, error.reason]
    return known["answer"]


def main() -> None:
    """See the module's docstring."""
    script = "" if sys.argv[3:] else sys.stdin.read()
    enter(int(sys.argv[1]), int(sys.argv[2]))
    if script:
        sys.stdout.write(json.dumps(run_script(script)))
        return
    with grpc.insecure_channel(SOCKET) as channel:
        sys.stdout.write(json.dumps({method: call(channel, method) for method in sys.argv[3:]}))


if __name__ == "__main__":
    main()
