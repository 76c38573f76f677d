"""Who a certificate says that a caller is: its one URI SAN, read strictly.

    spiffe://DOMAIN/host                         the host's root
    spiffe://DOMAIN/container/0123456789abcdef   root in that container

Anything else is refused: no URI SAN, two of them, another form, another trust domain. That the certificate is genuine
has been seen by then (`sysproc.server.tls`); that the container exists is asked in `sysproc.server.remote`.
"""

import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sysproc.ids import from_hex

SCHEME = "spiffe://"
_URI = re.compile(r"spiffe://(?P<domain>[^/]*)/(?:host|container/(?P<id>(?!0{16})[0-9a-f]{16}))", re.ASCII)

# As ssl.SSLSocket.getpeercert() has it.
PeerCertificate = Mapping[str, Any]


class NotAccepted(Exception):
    """A certificate that no caller has; the text says why, for people."""


@dataclass(frozen=True)
class Identity:
    """uri: the whole name. container_id: None is the host. ends: when the certificate does, in seconds since 1970."""

    uri: str
    domain: str
    container_id: int | None
    serial: str
    ends: float


def identity_of(certificate: PeerCertificate, domain: str) -> Identity:
    """Read a certificate that was verified; raises NotAccepted."""
    uri = only_uri(certificate)
    match = _URI.fullmatch(uri)
    if match is None:
        raise NotAccepted(f"its URI SAN {uri[:200]!r} is neither {SCHEME}{domain}/host nor …/container/ID")
    check_domain(match["domain"], domain)
    container_id = None if match["id"] is None else from_hex(match["id"])
    serial = str(certificate["serialNumber"]).lower().lstrip("0")
    return Identity(uri, domain, container_id, serial, float(ssl.cert_time_to_seconds(certificate["notAfter"])))


def check_domain(theirs: str, ours: str) -> None:
    """Raise NotAccepted for another trust domain."""
    if theirs != ours:
        raise NotAccepted(f"it is of the trust domain {theirs[:200]!r}, not of {ours!r}")


def only_uri(certificate: PeerCertificate) -> str:
    """The only URI among the names; raises NotAccepted."""
    uris = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "URI"]
    if len(uris) != 1:
        raise NotAccepted(f"it has {len(uris)} URI SANs instead of one")
    return str(uris[0])


def domain_of(authorities: Sequence[PeerCertificate]) -> str | None:
    """The trust domain that the authorities' own certificates name; None if they name none, or different ones."""
    domains = {
        name.removeprefix(SCHEME)
        for one in authorities
        for kind, name in one.get("subjectAltName", ())
        if kind == "URI" and re.fullmatch(r"spiffe://[a-z0-9._-]+", name)
    }
    return domains.pop() if len(domains) == 1 else None
