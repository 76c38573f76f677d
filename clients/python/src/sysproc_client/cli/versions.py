"""The subcommand `version`, and what is said where command and service are of different versions.

`sysproc --version` is the command's alone; it is in `sysproc_client.cli.main`.
"""

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import print_document
from sysproc_client.version import VERSION


@click.command("version")
@click.pass_obj
def version_command(options: Options) -> None:
    """Versions of the command and of the service, and whether they fit together."""
    if not options.for_programs:
        click.echo(f"sysproc  {VERSION}")  # also where no service answers
    with options.connect() as client:
        info = client.system_info()
    apart = mismatch(VERSION, info.version)
    if options.for_programs:
        told = {"sysproc": VERSION, "sysprocd": info.version, "api": info.api_version, "fits": not apart}
        print_document(options.output, told)
    else:
        click.echo(f"sysprocd {info.version}")
    if apart:
        click.echo(apart, err=True)


def mismatch(ours: str, theirs: str) -> str:
    """What to do where the versions do not fit together; empty where they do.

    Before 1.0 each minor version may change the API; from then on it grows only, within one major version.
    """
    client, server = series(ours), series(theirs)
    if client == server:
        return ""
    if client < server:
        return (
            f"This command is older than the service ({ours} < {theirs}): it does not know what is new there. "
            f"Upgrade the command: {installing(theirs)}"
        )
    return (
        f"The service is older than this command ({theirs} < {ours}): what is new here it refuses. "
        f"Upgrade and restart sysprocd, which touches no container; or {installing(theirs)}"
    )


def installing(version: str) -> str:
    """How one gets the command of a version: it comes from where the service does, and is in no index of packages."""
    wheel, package = f"sysproc_client-{version}-py3-none-any.whl", f"sysproc_{version}-1_*.deb"
    return f"install {wheel} or {package}, which `make wheels` and `make deb` give in a clone of that version."


def series(version: str) -> tuple[int, ...]:
    """What versions that fit together have in common."""
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in (*version.split("."), "0")[:2])
    return numbers[:1] if numbers[0] else numbers
