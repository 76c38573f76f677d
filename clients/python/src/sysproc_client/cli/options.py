"""Options that several subcommands share: `-o` after the subcommand, what a container is created with.

How they are sent is in `sysproc_client.client`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def _set_output(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().obj.output = value


def output_option(command: F) -> F:
    """`-o` also after the subcommand."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        callback=_set_output,
        expose_value=False,
        help="How results are printed.",
    )(command)


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`K=V`, repeated."""
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", context, parameter)
        found[key] = rest
    return found


_CREATION = (
    click.option("--name", default="", metavar="NAME", help="Unique among its siblings."),
    click.option("--image", default="", metavar="IMAGE", help="Default: busybox."),
    click.option("--parent", metavar="REF", help="Make it a child of this container."),
    click.option("--memory", metavar="SIZE", help="256M, 1G …"),
    click.option("--cpus", metavar="N", help="0.5 is half a processor."),
    click.option("--pids", type=int, metavar="N", help="Processes and threads."),
    click.option("--size", metavar="SIZE", help="Of its root. Default: 1G."),
    click.option("--hostname", default="", metavar="NAME", help="Default: its name, or its id."),
    click.option("-e", "--env", multiple=True, callback=pairs, metavar="K=V", help="Of all its processes; repeatable."),
    click.option("--label", "labels", multiple=True, callback=pairs, metavar="K=V", help="Repeatable."),
    click.option(
        "--profile",
        type=click.Choice(["default", "strict", "open"]),
        default="default",
        show_default=True,
        help="System calls allowed.",
    ),
)


def creation_options(command: F) -> F:
    """Everything that says what a new container shall be."""
    for option in reversed(_CREATION):
        command = option(command)
    return command
