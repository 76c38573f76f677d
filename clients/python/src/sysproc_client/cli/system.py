"""Subcommands about the service itself: whoami, info. Its version is in `sysproc_client.cli.versions`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import human_size, print_document
from sysproc_client.cli.tables import print_table

if TYPE_CHECKING:
    from nightos.sysproc.v1.system_service_pb2 import Disk

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
        disk = {name: getattr(info.disk, name) for name in ("full", "free_bytes", "enough_bytes", "size_bytes")}
        known = disk if info.HasField("disk") else None
        print_document(options.output, {**facts, "disk": known, "features": features})
        return
    if info.HasField("disk"):  # an older service says nothing of it, and none does inside a container
        facts["disk"] = state_of_disk(info.disk)
    for name, value in facts.items():
        click.echo(f"{name:15} {value}")
    if info.disk.full:
        click.echo(f"{'':15} {disk_to_do(info.disk)}")
    columns = ("name", "usable", "since", *(("fallback",) if options.wide else ()), "detail")
    rows = [tuple({**one, "usable": "yes" if one["usable"] else "no"}[name] for name in columns) for one in features]
    print_table(("feature", *columns[1:]), rows, cut_last=not options.wide)


def state_of_disk(disk: "Disk") -> str:
    """The disk with the state directory, in words."""
    room = f"{human_size(disk.free_bytes)} of {human_size(disk.size_bytes)} free"
    return f"full ({room}): containers get no more of it" if disk.full else room


def disk_to_do(disk: "Disk") -> str:
    """What to do about one that is full."""
    enough = human_size(disk.enough_bytes)
    return (
        f"Free some space on it, or destroy what is not needed, until {enough} are free: then all go on by themselves."
        " A btrfs that has become read-only is to be unmounted and mounted again."
    )
