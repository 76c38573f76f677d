"""Exec'd processes and the processes of a container, from and to messages.

The messages are in `proto/nightos/sysproc/v1/process_service.proto`; the values in `sysproc.exec_events`,
`sysproc.exec_prepare` and `sysproc.process_list`.
"""

from nightos.sysproc.v1 import process_service_pb2 as pb
from sysproc.exec_events import Event, ExecInfo, Exited, Output, Started, StdinAccepted
from sysproc.exec_prepare import WantedExec
from sysproc.isolation.exec_spec import Window
from sysproc.process_list import ProcessInfo
from sysproc.server import validate
from sysproc.server.convert.basics import duration, environment_from_proto, optional, timestamp
from sysproc.server.convert.containers import exit_to_proto
from sysproc.server.validate import Findings

SPOOL_BYTES = 16 * 2**20
DROPS_OLDEST = {
    pb.SPOOL_POLICY_UNSPECIFIED: False,
    pb.SPOOL_POLICY_WAIT: False,
    pb.SPOOL_POLICY_DROP_OLDEST: True,
}


# -- requests


def wanted_from_proto(start: pb.ExecRequest.Start) -> WantedExec:
    """The process that is asked for. Raises InvalidArgument."""
    return validate.valid(lambda findings: read_wanted(start, findings))


def read_wanted(start: pb.ExecRequest.Start, findings: Findings) -> WantedExec:
    """The same, with what is wrong collected."""
    uid, gid = optional(start, "uid"), optional(start, "gid")
    if start.exec_id:
        findings.exec_id("start.exec_id", start.exec_id)
    findings.check(len(start.argv) > 0 and start.argv[0] != b"", "start.argv", "is empty: name a command")
    findings.arguments("start.argv", start.argv)
    if start.working_directory:
        findings.path("start.working_directory", start.working_directory)
    findings.number("start.uid", uid, validate.UIDS)
    findings.number("start.gid", gid, validate.UIDS)
    findings.number("start.spool_bytes", start.spool_bytes or None, validate.SPOOL_BYTES)
    findings.check(start.spool_policy in DROPS_OLDEST, "start.spool_policy", "is no policy")
    return WantedExec(
        exec_id=start.exec_id,
        argv=tuple(start.argv),
        environment=environment_from_proto(start.environment, "start.environment", findings),
        directory=start.working_directory or b"/",
        uid=uid or 0,
        gid=gid,
        window=read_window(start.terminal, "start.terminal", findings) if start.HasField("terminal") else None,
        stdin=start.stdin,
        spool_bytes=start.spool_bytes or SPOOL_BYTES,
        drop_oldest=DROPS_OLDEST.get(start.spool_policy, False),
    )


def read_window(size: pb.WindowSize, field: str, findings: Findings) -> Window:
    """The size of a terminal, with what is wrong collected."""
    findings.number(f"{field}.rows", size.rows, validate.TERMINAL)
    findings.number(f"{field}.columns", size.columns, validate.TERMINAL)
    return Window(rows=size.rows, columns=size.columns)


def window_from_proto(size: pb.WindowSize) -> Window:
    """The size of a terminal. Raises InvalidArgument."""
    return validate.valid(lambda findings: read_window(size, "resize", findings))


def signal_from_proto(signal: pb.ExecRequest.Signal) -> int:
    """The number of a signal. Raises InvalidArgument."""
    validate.valid(lambda findings: findings.number("signal.number", signal.number, validate.SIGNALS))
    return signal.number


def exec_id_from_proto(exec_id: str, field: str) -> str:
    """The name of an exec'd process, which is also a name on disk. Raises InvalidArgument."""
    validate.valid(lambda findings: findings.exec_id(field, exec_id))
    return exec_id


def offsets_from_proto(attach: pb.ExecRequest.Attach) -> tuple[int | None, int | None]:
    """Where stdout and stderr are to begin."""
    return optional(attach, "stdout_offset"), optional(attach, "stderr_offset")


# -- responses


def event_to_proto(event: Event) -> pb.ExecResponse:
    """What an attached client is told."""
    match event:
        case Output():
            output = pb.ExecResponse.Output(offset=event.offset, data=event.data)
            return pb.ExecResponse(stdout=output) if event.stream == "stdout" else pb.ExecResponse(stderr=output)
        case StdinAccepted():
            return pb.ExecResponse(stdin_accepted=pb.ExecResponse.StdinAccepted(offset=event.offset))
        case Started():
            return pb.ExecResponse(started=started_to_proto(event))
        case Exited():
            return pb.ExecResponse(exited=exited_to_proto(event))


def started_to_proto(started: Started) -> pb.ExecResponse.Started:
    """The first of them."""
    return pb.ExecResponse.Started(
        exec_id=started.exec_id,
        stdout_offset=started.stdout_offset,
        stderr_offset=started.stderr_offset,
        stdin_offset=started.stdin_offset,
        spool_bytes=started.spool_bytes,
    )


def exited_to_proto(exited: Exited) -> pb.ExecResponse.Exited:
    """The last of them."""
    return pb.ExecResponse.Exited(
        status=exit_to_proto(exited.code, exited.signal),
        stdout_size=exited.stdout_size,
        stderr_size=exited.stderr_size,
        failure=exited.failure,
    )


def exec_to_proto(info: ExecInfo) -> pb.Exec:
    """One exec'd process in a list."""
    return pb.Exec(
        exec_id=info.exec_id,
        argv=info.argv,
        terminal=info.terminal,
        start_time=timestamp(info.started_at),
        exited=None if info.exited is None else exited_to_proto(info.exited),
        pid=info.pid or 0,
    )


def process_to_proto(process: ProcessInfo, *, for_host: bool) -> pb.Process:
    """One process of a container; its pid on the host is for callers of the host."""
    return pb.Process(
        pid=process.pid,
        parent_pid=process.parent_pid,
        uid=process.uid,
        state=process.state,
        argv=process.argv,
        start_time=timestamp(process.started_at),
        cpu_time=duration(process.cpu_s),
        resident_bytes=process.resident_bytes,
        host_pid=process.host_pid if for_host else 0,
    )
