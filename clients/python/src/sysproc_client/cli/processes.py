"""Subcommands for processes: exec, run, attach, ps."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.detaching import detach_option
from sysproc_client.cli.interrupts import held_back, loading, unwinding
from sysproc_client.cli.main import Options
from sysproc_client.cli.options import creation_options, pairs
from sysproc_client.cli.output import escaped, human_age, human_size, iso, print_document
from sysproc_client.cli.tables import print_table

if TYPE_CHECKING:
    from nightos.sysproc.v1.process_service_pb2 import Exec, Process
    from sysproc_client.container import Container

command_argument = click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD...")
_PROCESS = (
    click.option("-i", "--interactive", is_flag=True, help="Pass standard input on."),
    click.option("-t", "--tty", is_flag=True, help="With a terminal."),
    click.option("-w", "--workdir", "cwd", default="", metavar="DIR", help="Inside. Default: /"),
    click.option("-u", "--user", metavar="UID[:GID]", help="Inside. Default: 0"),
)
_ENV = click.option("-e", "--env", multiple=True, callback=pairs, metavar="K=V", help="Repeatable.")


def process_options(command: Any) -> Any:
    """How a process is started."""
    for option in reversed(_PROCESS):
        command = option(command)
    return command


def user_of(text: str | None) -> int | tuple[int, int] | None:
    """`1000` or `1000:1000`."""
    if text is None:
        return None
    uid, colon, gid = text.partition(":")
    if not uid.isdecimal() or (colon and not gid.isdecimal()):
        raise ValueError(f"{text!r} is no user: write UID or UID:GID, in numbers")
    return (int(uid), int(gid)) if colon else int(uid)


@click.command("exec", context_settings={"ignore_unknown_options": False})
@process_options
@detach_option
@_ENV
@click.argument("ref")
@command_argument
@click.pass_context
def exec_command(context: click.Context, /, ref: str, command: Sequence[str], user: str | None, **how: Any) -> None:
    """Run a command in a container; the exit code is its own (128+n for signal n, 125: ours, 126, 127)."""
    with loading():
        from sysproc_client.cli.session import run_process

    with context.obj.connect() as client:
        context.exit(run_process(client.at(ref), command, user=user_of(user), **how))


@click.command("run")
@creation_options
@process_options
@detach_option
@click.option("--keep", is_flag=True, help="Do not destroy the container at the end.")
@command_argument
@click.pass_context
def run_command(context: click.Context, /, command: Sequence[str], keep: bool, user: str | None, **given: Any) -> None:
    """Run a command in a container of its own, which is destroyed at the end; the exit code is the command's."""
    with loading():
        from sysproc_client.cli.session import run_process

    how = {name: given.pop(name) for name in ("interactive", "tty", "cwd", "detach_keys")}
    if not keep:
        how["detach_keys"] = b""  # who left it would find nothing to come back to
    chosen = user_of(user)
    with ExitStack() as stack:
        stack.enter_context(unwinding())
        client = stack.enter_context(context.obj.connect())
        with held_back():
            box = client.create(**given)
            if not keep:
                stack.callback(destroy_at_end, box)
        if keep:
            click.echo(box.id, err=True)
        code = run_process(box, command, user=chosen, env={}, **how)
    context.exit(code)


def destroy_at_end(box: "Container") -> None:
    """Whatever has ended the command; whoever has to know is told if that fails."""
    from sysproc_client._core.errors import SysprocError

    with held_back():
        try:
            box.destroy()
        except (SysprocError, click.exceptions.Exit):
            click.echo(f"sysproc: Container {box.id} may be left.", err=True)
            raise


@click.command("attach")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on. With a terminal it always is.")
@detach_option
@click.argument("ref")
@click.argument("exec_id", required=False)
@click.pass_context
def attach_command(
    context: click.Context, ref: str, exec_id: str | None, interactive: bool, detach_keys: bytes
) -> None:
    """Come back to a process that `exec` has started: EXEC_ID, or the only one that runs.

    Its output begins where nobody has taken it yet, as far as that is known; the exit code is its own.
    """
    with loading():
        from sysproc_client.cli.session import carry, redraw

    with context.obj.connect() as client:
        box = client.get(ref)
        found = chosen([*box.execs()], exec_id)
        process = box.attach(found.exec_id)
        if found.terminal:
            redraw(process)
        on = interactive or found.terminal
        context.exit(carry(process, interactive=on, tty=found.terminal, detach_keys=detach_keys))


def chosen(execs: Sequence["Exec"], exec_id: str | None) -> "Exec":
    """The one that is meant; UsageError where that is unclear."""
    if exec_id is not None:
        for one in execs:
            if one.exec_id == exec_id:
                return one
    running = [one for one in execs if not one.HasField("exited")]
    if exec_id is None and len(running) == 1:
        return running[0]
    there = "".join(f"\n  {one.exec_id}  {escaped(b' '.join(one.argv))}" for one in running) or " none."
    wrong = "Which process is meant?" if exec_id is None else f"There is no process {exec_id}."
    raise click.UsageError(f"{wrong} Running are:{there}")


@click.command("ps")
@click.argument("ref")
@click.pass_obj
def ps_command(options: Options, ref: str) -> None:
    """List the processes in a container."""
    from sysproc_client.container import as_datetime

    with options.connect() as client:
        found = client.get(ref).ps()
    if options.for_programs:
        print_document(
            options.output,
            [
                {
                    "pid": one.pid,
                    "parent_pid": one.parent_pid,
                    "host_pid": one.host_pid,
                    "uid": one.uid,
                    "state": one.state,
                    "argv": [part.decode("utf-8", "backslashreplace") for part in one.argv],
                    "started": iso(as_datetime(one.start_time)),
                    "cpu_seconds": one.cpu_time.ToTimedelta().total_seconds(),
                    "resident_bytes": one.resident_bytes,
                }
                for one in found
            ],
        )
        return
    columns = ("pid", "ppid", "uid", "state", "cpu s", "memory", *(("host pid", "started") if options.wide else ()))
    print_table((*columns, "command"), [row_of(one, wide=options.wide) for one in found], cut_last=not options.wide)


def row_of(one: "Process", *, wide: bool) -> tuple[str, ...]:
    """A line of the list."""
    from sysproc_client.container import as_datetime

    numbers = (str(one.pid), str(one.parent_pid), str(one.uid))
    used = (f"{one.cpu_time.ToTimedelta().total_seconds():.2f}", human_size(one.resident_bytes))
    more = (str(one.host_pid), f"{human_age(as_datetime(one.start_time))} ago") if wide else ()
    return (*numbers, one.state, *used, *more, " ".join(escaped(part) for part in one.argv))
