"""Subcommands about the service itself: whoami, info. Its version is in `sysproc_client.cli.versions`."""

from collections.abc import Sequence

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import print_document
from sysproc_client.cli.tables import print_table

CGROUP_MODES = {1: "unified (version 2)", 2: "hybrid (version 1 controllers)", 3: "legacy (version 1)"}


@click.command("whoami")
@click.pass_obj
def whoami_command(options: Options) -> None:
    """Who this caller is, as the kernel says."""
    with options.connect() as client:
        me = client.whoami()
    told = {
        "container": f"{me.container_id:016x}" if me.container_id else "",
        "name": me.container_name,
        "uid": me.uid,
        "pid": me.pid,
        "authority": me.authority,
        "methods": list(me.methods),
        "remote_identity": me.remote_identity,
    }
    if options.for_programs:
        print_document(options.output, told)
        return
    where = f"in container {told['container']}" if me.container_id else "on the host"
    who = f"{me.remote_identity}: uid {me.uid}" if me.remote_identity else f"uid {me.uid}, pid {me.pid}"
    click.echo(f"{who}, {where}; {'with' if me.authority else 'without'} authority")
    click.echo("may call: " + may_call(me.methods))


def may_call(methods: Sequence[str]) -> str:
    """The methods for people: grouped by their service."""
    services: dict[str, list[str]] = {}
    for method in methods:
        service, _, name = method.partition("/")
        services.setdefault(service.removesuffix("Service"), []).append(name)
    return "; ".join(f"{service}: {', '.join(names)}" for service, names in services.items())


@click.command("info")
@click.pass_obj
def info_command(options: Options) -> None:
    """What the service and its kernel can do."""
    with options.connect() as client:
        info = client.system_info()
    features = [
        {name: getattr(one, name) for name in ("name", "usable", "detail", "fallback", "since")}
        for one in info.features
    ]
    facts = {
        name: getattr(info, name)
        for name in ("version", "api_version", "kernel_release", "architecture", "python_version", "grpc_version")
    }
    facts["cgroups"] = CGROUP_MODES.get(info.cgroup_mode, "unknown")
    if options.for_programs:
        print_document(options.output, {**facts, "features": features})
        return
    for name, value in facts.items():
        click.echo(f"{name:15} {value}")
    columns = ("name", "usable", "since", *(("fallback",) if options.wide else ()), "detail")
    rows = [tuple({**one, "usable": "yes" if one["usable"] else "no"}[name] for name in columns) for one in features]
    print_table(("feature", *columns[1:]), rows, cut_last=not options.wide)
