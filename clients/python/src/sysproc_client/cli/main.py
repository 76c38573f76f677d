"""The top of the command line: global options, the table of subcommands, how errors are told.

Subcommands are imported when they run, so that `--help` is quick; what is printed is decided in
`sysproc_client.cli.output`, what becomes of standard streams that fail in `sysproc_client.cli.streams`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NoReturn

import click

from sysproc_client.cli.interrupts import loading
from sysproc_client.cli.manual import TOP
from sysproc_client.cli.streams import NOBODY_READS, leave, open_what_is_closed
from sysproc_client.cli.usage import no_such_command, tell_usage
from sysproc_client.version import VERSION

OWN_FAILURE = 125
FORMS = ("table", "wide", "json", "yaml", "name")
# Name of a subcommand: module, and the line in --help.
COMMANDS = {
    "create": ("containers", "Make a container and start it; prints its id."),
    "list": ("containers", "List all containers."),
    "tree": ("containers", "Show the containers as a tree."),
    "inspect": ("containers", "Show everything about a container."),
    "update": ("containers", "Change limits and labels."),
    "start": ("containers", "Start stopped containers."),
    "stop": ("containers", "Stop containers; their files stay."),
    "freeze": ("containers", "Suspend all processes of containers."),
    "thaw": ("containers", "Let frozen containers go on."),
    "destroy": ("containers", "Destroy containers and everything below them."),
    "exec": ("processes", "Run a command in a container."),
    "run": ("processes", "Run a command in a container of its own."),
    "attach": ("processes", "Come back to a process that was left to itself."),
    "ps": ("processes", "List the processes in a container."),
    "image": ("images", "Import, list, inspect and delete images."),
    "volume": ("volumes", "Create, list, grow, copy and delete volumes."),
    "mount": ("volumes", "Mount a volume in a running container."),
    "umount": ("volumes", "Take a volume out of a container again."),
    "cert": ("certificates", "Certificates for callers on other machines."),
    "whoami": ("system", "Who this caller is, as the kernel says."),
    "info": ("system", "What the service and its kernel can do."),
    "completion": ("completion", "The script that completes `sysproc` in a shell."),
    "doctor": ("doctor", "What the service and this host can do, and what to do."),
    "version": ("versions", "Versions of the command and of the service."),
}
# Here 1 would be taken for the command's own exit code.
_RUNS_COMMANDS = ("exec", "run", "attach")


@dataclass
class Options:
    """The global options, as far as they were given."""

    endpoint: str | None = None
    output: str = "table"
    tls: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def for_programs(self) -> bool:
        """Whether a program reads what is printed."""
        return self.output not in ("table", "wide")

    @property
    def wide(self) -> bool:
        """Whether a table has all its columns."""
        return self.output == "wide"

    def connect(self, **how: Any) -> Any:
        """A client of the endpoint; imported here, since it costs most of a short command's time."""
        with loading():
            from sysproc_client.client import Client
            from sysproc_client.tls import Tls

        if any(self.tls.values()):
            how["tls"] = Tls.chosen(self.tls)
        return Client(self.endpoint, on_away=tell_away, **how)


class Subcommands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None for one that is none."""
        if cmd_name not in COMMANDS:
            return None
        with loading():
            from sysproc_client.cli.completion import with_completion
            from sysproc_client.cli.examples import with_examples
            from sysproc_client.cli.options import with_output

            module = import_module(f"sysproc_client.cli.{COMMANDS[cmd_name][0]}")
        command = with_output(getattr(module, f"{cmd_name}_command"))
        return with_examples(with_completion(command, cmd_name), cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; that nobody reads its output any more ends it quietly."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise click.exceptions.Exit(NOBODY_READS) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a guess for a mistyped one."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(no_such_command(args[0], COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(cls=Subcommands, epilog=TOP, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--endpoint",
    metavar="URL",
    help="The service: unix:///PATH or tcp://HOST:PORT. Default: $SYSPROC_ENDPOINT, else the host's.",
)
@click.option("--tls-ca", metavar="FILE", help="For tcp://: the service's authority. Default: $SYSPROC_TLS_CA.")
@click.option("--tls-cert", metavar="FILE", help="For tcp://: our certificate. Default: $SYSPROC_TLS_CERT.")
@click.option("--tls-key", metavar="FILE", help="For tcp://: its key. Default: $SYSPROC_TLS_KEY.")
@click.option("-o", "--output", type=click.Choice(FORMS), default="table", help="How results are printed.")
@click.version_option(VERSION, prog_name="sysproc", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, /, endpoint: str | None, output: str, **tls: str | None) -> None:
    """Create, use and destroy hierarchical containers.

    A container is named by its id of 16 hex digits, or by its path of names: `web/worker`.
    """
    if not colours_wanted():
        context.color = False
    context.obj = Options(endpoint, output, {name.removeprefix("tls_"): path for name, path in tls.items()})


def colours_wanted() -> bool:
    """Whether a terminal gets them: https://no-color.org. Nothing else does, which click sees to."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the command."""
    open_what_is_closed()
    # What gRPC logs by itself is told in words of ours; read when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    failed = OWN_FAILURE if runs_command(given) else 1
    try:
        # Without standalone mode an Exit comes back as its code.
        code = cli.main(given, prog_name="sysproc", standalone_mode=False)
    except click.Abort:
        leave(130)
    except click.UsageError as error:
        tell_usage(error)
        leave(OWN_FAILURE if runs_command(given) else error.exit_code)
    except SystemExit as end:
        leave(NOBODY_READS if end.code else 0)  # what click makes of a pipe that nobody reads, for --help
    except Exception as error:
        leave(tell(error, failed))
    leave(code if isinstance(code, int) else 0)


def runs_command(given: Sequence[str]) -> bool:
    """Whether the exit code is that of a command inside."""
    words = [word for word in given if not word.startswith("-")]
    return bool(words) and any(word in _RUNS_COMMANDS for word in words[:6])


def tell(error: Exception, code: int, about: str = "") -> int:
    """What happened, and what to do; the exit code. What is no error of the service, or of the user, is a bug."""
    from sysproc_client._core.errors import SysprocError
    from sysproc_client.cli.output import escaped

    if not isinstance(error, (SysprocError, ValueError, OSError)):
        raise error
    click.echo(f"sysproc: {escaped(about)}{escaped(words_of(error))}", err=True)
    if isinstance(error, SysprocError) and error.resolution:
        click.echo(f"         {escaped(error.resolution)}", err=True)
    return code


def words_of(error: Exception) -> str:
    """What an error says to people: of the system's, without number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def tell_away(endpoint: str) -> None:
    """The connection was lost, and is not back yet."""
    click.echo(f"sysproc: The connection to {endpoint} is lost; waiting for sysprocd to come back.", err=True)
