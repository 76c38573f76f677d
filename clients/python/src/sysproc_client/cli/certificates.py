"""Subcommands for certificates: `sysproc cert init`, `issue`, `revoke`, `list`. They ask no service.

What is done with keys and files is in `sysproc_client.certificates`, imported when it is used: the library that it
needs is an extra of the distribution.
"""

import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.output import print_document
from sysproc_client.cli.tables import print_table

if TYPE_CHECKING:
    from sysproc_client.certificates import Authority, Issued

DIRECTORY = Path("/etc/sysproc/tls")
LOCAL = ("localhost", "127.0.0.1", "::1")

directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=DIRECTORY,
    show_default=True,
    help="Where the authority is.",
)


@click.group("cert")
def cert_command() -> None:
    """Certificates for callers on other machines, and for the service that they call."""


@cert_command.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=DIRECTORY)
@click.option("--domain", default="sysproc", show_default=True, help="Trust domain: part of each caller's identity.")
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME", help="Name or address of the server; repeatable. Default: ours."
)
@click.option("--force", is_flag=True, help="Replace the authority that is there; what it has issued is void then.")
@click.pass_obj
def init_command(options: Options, directory: Path, domain: str, hosts: tuple[str, ...], force: bool) -> None:
    """Make an authority in DIRECTORY (/etc/sysproc/tls), the server's certificate, an empty list of revoked ones.

    Keep ca.key as safe as the host itself: who has it is root there. sysprocd does not need it.
    """
    authority = with_library().create(directory, domain, force=force)
    server = authority.issue_server(hosts or [*dict.fromkeys((socket.gethostname(), *LOCAL))])
    if options.for_programs:
        print_document(options.output, {"directory": str(directory), "domain": domain, **facts(server.issued)})
        return
    click.echo(f"{directory}: authority of spiffe://{domain}; server: {', '.join(server.issued.names)}")
    click.echo(f"Next: sysprocd --listen tcp://HOST:PORT{of_directory(directory)}", err=True)
    click.echo(f"      sysproc cert issue --host{of_directory(directory, '--dir')}", err=True)


@cert_command.command("issue")
@directory_option
@click.option("--host", is_flag=True, help="For a caller with the authority of the host's root.")
@click.option("--container", metavar="ID", help="For a caller with the authority of root in this container.")
@click.option("--server", "names", multiple=True, metavar="NAME", help="Renew the server's: a name or address.")
@click.option("--days", type=click.IntRange(1, 3650), metavar="N", help="Default: 90 for callers, 397 for the server.")
@click.option("--out", type=click.Path(path_type=Path), metavar="PREFIX", help="Write PREFIX.pem and PREFIX.key.")
@click.pass_obj
def issue_command(
    options: Options,
    directory: Path,
    host: bool,
    container: str | None,
    names: tuple[str, ...],
    days: int | None,
    out: Path | None,
) -> None:
    """Issue a certificate with a key: --host, --container ID, or --server NAME…; prints the two files."""
    if (host, container is not None, bool(names)).count(True) != 1:
        raise click.UsageError("One of --host, --container ID and --server NAME says what the certificate is for.")
    if names and out is not None:
        raise click.UsageError("--server replaces the server's files in the directory: there is no --out.")
    authority = with_library()(directory)
    validity = None if days is None else validity_of(days)
    pair = authority.issue_server(names, validity) if names else authority.issue_client(container, validity, out)
    told = {"cert": str(pair.cert), "key": str(pair.key), "ca": str(directory / "ca.pem"), **facts(pair.issued)}
    if options.for_programs:
        print_document(options.output, told)
        return
    click.echo(f"{pair.cert}\n{pair.key}")
    if not names:
        click.echo(f"Use: sysproc --tls-ca {told['ca']} --tls-cert {pair.cert} --tls-key {pair.key} …", err=True)


@cert_command.command("revoke")
@directory_option
@click.argument("certificate")
@click.pass_obj
def revoke_command(options: Options, directory: Path, certificate: str) -> None:
    """Revoke CERTIFICATE, a serial number or a file.

    As soon as sysprocd has the new crl.pem it refuses it, and ends the connections that were made with it.
    """
    serial = with_library()(directory).revoke(certificate)
    if options.for_programs:
        print_document(options.output, {"serial": serial})
        return
    click.echo(serial)


@cert_command.command("list")
@directory_option
@click.pass_obj
def list_command(options: Options, directory: Path) -> None:
    """List the certificates that were issued."""
    authority = with_library()(directory)
    revoked = authority.revoked()
    found = [{**facts(one), "state": state_of(one, revoked), "file": one.file} for one in authority.issued()]
    if options.for_programs:
        print_document(options.output, found)
        return
    rows = [(one["serial"], one["state"], one["not_after"][:10], ", ".join(one["names"])) for one in found]
    print_table(("serial", "state", "until", "for"), rows)


def facts(issued: "Issued") -> dict[str, Any]:
    """What programs are told of a certificate."""
    return {
        "serial": issued.serial,
        "what": issued.what,
        "names": list(issued.names),
        "not_after": issued.not_after,
    }


def state_of(issued: "Issued", revoked: frozenset[str]) -> str:
    """valid, expired or revoked."""
    if issued.serial in revoked:
        return "revoked"
    return "expired" if datetime.fromisoformat(issued.not_after) <= datetime.now(timezone.utc) else "valid"


def of_directory(directory: Path, option: str = "--tls-dir") -> str:
    """The option that names a directory; nothing for the usual one."""
    return "" if directory == DIRECTORY else f" {option} {directory.absolute()}"


def validity_of(days: int) -> Any:
    """From now on, for so many days."""
    from sysproc_client.certificates import Validity

    return Validity.days(days)


def with_library() -> "type[Authority]":
    """The authority, if the library that it needs is installed."""
    try:
        from sysproc_client.certificates import Authority
    except ModuleNotFoundError as error:
        from sysproc_client._core.errors import FailedPrecondition

        if (error.name or "").partition(".")[0] != "cryptography":
            raise
        raise FailedPrecondition(
            "Certificates are made with the library `cryptography`, which is not installed.",
            reason="NO_CRYPTOGRAPHY",
            resolution="Install it: pip install cryptography",
        ) from error
    return Authority
