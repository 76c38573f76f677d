"""Completion in bash, zsh and fish: names of containers, volumes and images that are there, and files where meant.

    shell ── `_SYSPROC_COMPLETE=bash_complete sysproc` ─▶ click finds the parameter ─▶ its type asks the service

Which parameter means what is decided here by its name, when its subcommand is imported. Where no service answers at
once nothing is offered, and nothing is said: somebody is typing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class
from click.types import StringParamType

from sysproc_client.cli.main import Options

if TYPE_CHECKING:
    from sysproc_client.client import Client
    from sysproc_client.container import Container

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_SYSPROC_COMPLETE"
# How long somebody who types may be kept waiting.
TIMEOUT_S = 1.0
# Subcommands whose NAME is one that is not there yet.
_NEW = ("create", "import")
Offered = Iterator[tuple[str, str]]
# What was typed already, by the names of the parameters.
Typed = Mapping[str, Any]
# Of a command line, beside its exec id.
_SHOWN = 40


class Offering(StringParamType):
    """A text for which the shell is offered what the service has: names, each with a word about it."""

    def __init__(self, ask: "Callable[[Client, Typed], Offered]") -> None:
        self._ask = ask

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What begins so; nothing where nobody answers."""
        from sysproc_client._core.errors import SysprocError

        try:
            with options_of(ctx).connect(timeout=TIMEOUT_S, patience=0) as client:
                found = [*self._ask(client, ctx.params)]
        except (SysprocError, OSError, ValueError):
            return []
        taken = ctx.params.get(param.name or "") or ()
        return [
            CompletionItem(name, help=word)
            for name, word in found
            if name.startswith(incomplete) and (isinstance(taken, str) or name not in taken)
        ]


class AFile(StringParamType):
    """A text that is the name of a file here."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The shell knows better."""
        return [CompletionItem(incomplete, type="file")]


def options_of(ctx: click.Context) -> Options:
    """The global options, as far as they were typed: no command is run, so nobody has made them."""
    given = ctx.find_root().params
    tls = {name.removeprefix("tls_"): given[name] for name in given if name.startswith("tls_")}
    return Options(given.get("endpoint"), tls=tls)


# -- what there is


def containers(client: "Client", _: Typed) -> Offered:
    """Each by its path of names, where all above it have one, and by its id."""
    paths: dict[str, str] = {}
    for box in client.list():
        if path := path_of(box, paths):
            paths[box.id] = path
            yield path, box.state
        yield box.id, f"{box.state} {box.name}".rstrip()


def volumes(client: "Client", _: Typed) -> Offered:
    """Each after its owner's path or id, where it has one."""
    paths: dict[str, str] = {}
    for box in client.list():
        paths[box.id] = path_of(box, paths) or box.id
    for volume in client.volumes.list():
        owner = paths.get(volume.owner_id, volume.owner_id)
        yield f"{owner}/{volume.name}" if owner else volume.name, "volume"


def path_of(box: "Container", above: Mapping[str, str]) -> str:
    """By the paths of what is above it; empty where it has none."""
    if not box.name or not box.parent_id:
        return box.name
    return f"{above[box.parent_id]}/{box.name}" if box.parent_id in above else ""


def images(client: "Client", _: Typed) -> Offered:
    """By name."""
    for image in client.images.list():
        yield image.name, image.digest.hex()[:12]


def execs(client: "Client", typed: Typed) -> Offered:
    """The processes that were started in the container that was typed, by exec id; also what has ended and is kept."""
    from sysproc_client.cli.output import escaped

    for one in client.get(typed["ref"]).execs() if typed.get("ref") else ():
        state = "ended" if one.HasField("exited") else "running"
        yield one.exec_id, f"{state} {escaped(b' '.join(one.argv))[:_SHOWN]}".rstrip()


CONTAINERS, VOLUMES, IMAGES, EXECS = (Offering(ask) for ask in (containers, volumes, images, execs))
FILES = AFile()


def with_completion(command: click.Command, family: str) -> click.Command:
    """The same command, whose parameters know what is offered for them; of a group each of its commands."""
    if isinstance(command, click.Group):
        for one in command.commands.values():
            with_completion(one, family)
    for parameter in command.params:
        if isinstance(parameter.type, StringParamType) and (meant := meaning(parameter, command, family)) is not None:
            parameter.type = meant
    return command


def meaning(parameter: click.Parameter, command: click.Command, family: str) -> StringParamType | None:
    """What a parameter of this name is in this subcommand; None for what cannot be guessed."""
    name: Any = parameter.name
    if name in ("ref", "refs", "parent", "owner"):
        return CONTAINERS
    if name == "exec_id":
        return EXECS
    if name == "image":
        return IMAGES
    if name in ("source", "file") or parameter.human_readable_name in ("FILE", "SOURCE") or name.endswith("_file"):
        return FILES
    if name == "volume" or (name in ("name", "names") and family == "volume" and command.name not in _NEW):
        return VOLUMES
    return IMAGES if name in ("name", "names") and family == "image" and command.name not in _NEW else None


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script that completes `sysproc` in a shell.

    \b
    bash  in ~/.bashrc: source <(sysproc completion bash)
    zsh   in ~/.zshrc, after compinit: source <(sysproc completion zsh)
    fish  sysproc completion fish > ~/.config/fish/completions/sysproc.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"This version of click completes nothing in {shell}.")
    click.echo(kind(context.find_root().command, {}, "sysproc", VARIABLE).source())
