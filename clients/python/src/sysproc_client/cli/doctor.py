"""The subcommand `doctor`: what the service and its host can and cannot do, in plain words, each with what to do.

    fine      it works
    note      it works in another way, which costs little
    warning   something that may be asked for is refused             exit code 1
    error     containers cannot be made, or not by this caller       exit code 2

Asked are the service, if one answers, and the host, if it is this machine: how is in `sysproc_client.cli.host_checks`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.host_checks import ERROR, FINE, NOTE, SEVERITIES, WARNING, Finding, Host, look_at
from sysproc_client.cli.main import Options
from sysproc_client.cli.output import escaped, print_document
from sysproc_client.cli.system import disk_to_do, state_of_disk
from sysproc_client.cli.tables import coloured
from sysproc_client.cli.versions import mismatch
from sysproc_client.version import VERSION

if TYPE_CHECKING:
    from nightos.sysproc.v1.system_service_pb2 import Disk, GetSystemInfoResponse, KernelFeature

EXIT_CODES = {FINE: 0, NOTE: 0, WARNING: 1, ERROR: 2}
# What the service says where there is nothing instead.
_NEEDED = "none:"
# What it says of limits and volumes that are then refused.
_REFUSED = ("refused", "cannot be mounted")
OUTSIDE = "To examine its host, run `sysproc doctor` there."
_TIMEOUT_S = 10.0


@click.command("doctor")
@click.pass_obj
def doctor_command(options: Options) -> None:
    """Look what the service and this host can and cannot do, and say what to do.

    The exit code is 0 if everything works, 1 if something that may be asked for is refused, 2 if containers cannot be
    made.
    """
    found = [*examined(options)]
    worst = max((one.severity for one in found), key=SEVERITIES.index)
    if options.for_programs:
        print_document(options.output, [asdict(one) for one in found])
    else:
        show(found)
    raise click.exceptions.Exit(EXIT_CODES[worst])


def examined(options: Options) -> Iterator[Finding]:
    """First the service, then what is below it."""
    from sysproc_client._core.errors import SysprocError
    from sysproc_client.endpoint import chosen_endpoint, is_remote

    endpoint = chosen_endpoint(options.endpoint)
    inside, info = False, None
    try:
        with options.connect(timeout=_TIMEOUT_S, patience=0) as client:
            me = client.whoami()
            inside = me.container_id != 0
            yield authority(me)
            info = client.system_info() if me.authority else None
    except SysprocError as failure:
        yield Finding("service", ERROR, failure.message, failure.resolution)
    else:
        yield from service(endpoint, info)
    if is_remote(endpoint) or inside:
        yield Finding("host", NOTE, "The service is on another machine, or outside of this container.", OUTSIDE)
    else:
        yield from look_at(Host(), endpoint, answered=info is not None)


def authority(me: Any) -> Finding:
    """Whether this caller may do more than ask who it is."""
    if me.authority:
        return Finding("authority", FINE, f"uid {me.uid} may make containers.")
    return Finding("authority", ERROR, f"uid {me.uid} may make no containers.", "Be root, or be named by --api-users.")


def service(endpoint: str, info: "GetSystemInfoResponse | None") -> Iterator[Finding]:
    """That it answers, its version, its disk, its kernel's features."""
    yield Finding("service", FINE, f"sysprocd answers at {endpoint}.")
    if info is None:
        return
    apart = mismatch(VERSION, info.version)
    yield Finding("version", WARNING if apart else FINE, f"sysproc {VERSION}, sysprocd {info.version}.", apart)
    if info.HasField("disk"):  # an older service says nothing of it, and none does inside a container
        yield of_disk(info.disk)
    for feature in info.features:
        yield of_feature(feature, info.kernel_release)


def of_disk(disk: "Disk") -> Finding:
    """The one with the state directory."""
    what = f"The disk with the state directory: {state_of_disk(disk)}."
    return Finding("disk", WARNING if disk.full else FINE, what, disk_to_do(disk) if disk.full else "")


def of_feature(feature: "KernelFeature", release: str) -> Finding:
    """One of the kernel's, in the service's words."""
    if feature.usable:
        return Finding(feature.name, FINE, "The kernel has it.")
    severity = NOTE
    if feature.fallback.startswith(_NEEDED):
        severity = ERROR
    elif any(word in feature.fallback for word in _REFUSED):
        severity = WARNING
    what = f"The kernel does not offer it ({feature.detail or 'no reason is known'}). Without it: {feature.fallback}."
    to_do = f"Linux {feature.since} and newer have it; this is {release}."
    if _numbers(release) >= _numbers(feature.since):
        to_do = f"Linux {release} is new enough: it was built or configured without it, or a sandbox hides it."
    return Finding(feature.name, severity, what, to_do if severity != NOTE else f"Nothing has to be done. {to_do}")


def _numbers(release: str) -> tuple[int, ...]:
    """`6.1.0-18-amd64` as (6, 1, 0)."""
    return tuple(int(part) for part in release.partition("-")[0].split(".") if part.isdecimal())


def show(found: Sequence[Finding]) -> None:
    """For people: what is wrong with what to do, then how much is fine."""
    most = max(map(len, SEVERITIES))
    for one in found:
        click.echo(
            f"{coloured(one.severity.ljust(most))}  {click.style(escaped(one.name), bold=True)}: {escaped(one.what)}"
        )
        if one.to_do and one.severity != FINE:
            click.echo(f"{' ' * most}  {escaped(one.to_do)}")
    count = {severity: sum(one.severity == severity for one in found) for severity in reversed(SEVERITIES)}
    click.echo(", ".join(f"{severity}: {number}" for severity, number in count.items() if number) + ".")
