"""Options that several subcommands share: `-o` after the subcommand, what a container is created with.

How they are sent is in `sysproc_client.client`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from sysproc_client.cli.main import FORMS

F = TypeVar("F", bound=Callable[..., Any])


def _set_output(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_root().obj.output = value


def with_output(command: click.Command) -> click.Command:
    """The same command, with `-o` after it too; of a group each of its commands as well.

    Where `-o` is the options of a mount, as it is for mount(8), only `--output` is.
    """
    if isinstance(command, click.Group):
        for one in command.commands.values():
            with_output(one)
    if all(parameter.name != "output" for parameter in command.params):
        taken = any("-o" in parameter.opts for parameter in command.params)
        command.params.append(
            click.Option(
                ["--output"] if taken else ["-o", "--output"],
                type=click.Choice(FORMS),
                callback=_set_output,
                expose_value=False,
                help="How results are printed.",
            )
        )
    return command


def pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """`K=V`, repeated."""
    found = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE", context, parameter)
        found[key] = rest
    return found


def time_option(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """`15m` in seconds."""
    from sysproc_client._core.values import seconds

    return None if value is None else seconds(value)


def users_option(_: click.Context, parameter: click.Parameter, value: str | None) -> str | list[int]:
    """`all`, or uids with commas between."""
    if value is None or value == "all":
        return value or []
    try:
        return [int(uid) for uid in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither `all` nor uids like 33,1000", param=parameter) from None


_CREATION = (
    click.option("--name", default="", metavar="NAME", help="Unique among its siblings."),
    click.option("--image", default="", metavar="IMAGE", help="Default: busybox."),
    click.option("--parent", metavar="REF", help="Make it a child of this container."),
    click.option("--memory", metavar="SIZE", help="256M, 1G …"),
    click.option("--cpus", metavar="N", help="0.5 is half a processor."),
    click.option("--pids", type=int, metavar="N", help="Processes and threads."),
    click.option("--size", metavar="SIZE", help="Of its root. Default: 1G."),
    click.option("--descendants", type=int, metavar="N", help="Containers there may be below it."),
    click.option("--depth", type=int, metavar="N", help="Levels of containers there may be below it."),
    click.option("--storage", metavar="SIZE", help="What it and all below may store together."),
    click.option("--overcommit", is_flag=True, help="Count its size against no storage limit or free disk."),
    click.option("--delegate", is_flag=True, help="Let its root divide its part of the cgroups (systemd, podman)."),
    click.option("--ttl", callback=time_option, metavar="TIME", help="Destroy it after 90s, 15m, 12h, 7d."),
    click.option(
        "--idle-timeout", callback=time_option, metavar="TIME", help="Destroy it when it was not used for so long."
    ),
    click.option(
        "--api-users",
        callback=users_option,
        metavar="33,1000|all",
        help="Who inside has authority besides root.",
    ),
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
