"""Authorities and certificates of all sorts for tests of TLS, good ones and bad ones.

What `sysproc cert` makes comes from `sysproc_client.certificates`; the rest, which it refuses to make, is made here.
"""

import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from sysproc.server.settings import TlsFiles
from sysproc_client.certificates import Authority, Pair, Validity

NOW = datetime.now(UTC)
EXPIRED = Validity(NOW - timedelta(days=9), NOW - timedelta(days=1))
NOT_YET = Validity(NOW + timedelta(days=1), NOW + timedelta(days=9))


def authority(directory: Path, *hosts: str, domain: str = "sysproc") -> Authority:
    """A new one with a server's certificate."""
    made = Authority.create(directory, domain)
    made.issue_server(hosts or ("localhost", "127.0.0.1", "::1"))
    return made


def files_of(directory: Path) -> TlsFiles:
    """As sysprocd is told of them."""
    return TlsFiles(directory / "server.pem", directory / "server.key", directory / "ca.pem", directory / "crl.pem")


def with_uris(authority: Authority, *uris: str) -> Pair:
    """A client's certificate with other names than those that `sysproc cert` gives."""
    san: Sequence[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris] or [x509.DNSName("x")]
    return authority._issue("client", san, ["client://x/odd"], Validity.days(1), None)


def client_context(ca: Path, pair: Pair | None, *, alpn: bool = True) -> ssl.SSLContext:
    """As a careful client has it, or a careless one."""
    context = ssl.create_default_context(cafile=ca)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    if alpn:
        context.set_alpn_protocols(["h2"])
    return context


def elsewhere(files: TlsFiles, **changed: Path) -> TlsFiles:
    """The same with some of the files at other places."""
    return replace(files, **changed)  # type: ignore[arg-type]  # the fields of files are paths
