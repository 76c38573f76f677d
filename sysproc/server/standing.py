"""Whether a certificate that was good when its caller connected still is, by files that came later.

OpenSSL judges in the handshake, and only there (`sysproc.server.tls`). Afterwards this is asked of each connection
that is open: was it issued by one of the authorities, and is it on none of their lists? What cannot be told here, a
certificate below an authority that is not in our file, is not good: its caller connects again, and OpenSSL judges.
"""

import re
from collections.abc import Sequence
from copy import copy

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)

REVOKED = "its certificate was revoked meanwhile"
NOT_OURS = "its certificate is of no authority that is trusted now"


class Standing:
    """The authorities and their lists, of two files in PEM. Raises ValueError for what cannot be read."""

    def __init__(self, authorities: bytes, lists: bytes) -> None:
        self._authorities = x509.load_pem_x509_certificates(authorities)
        self._lists = lists_in(lists)

    def with_lists(self, lists: bytes) -> "Standing":
        """The same authorities, with lists of theirs that came later. Raises ValueError for what cannot be read."""
        other = copy(self)
        other._lists = [*self._lists, *(one for one in lists_in(lists) if self._is_news(one))]
        return other

    def _is_news(self, one: x509.CertificateRevocationList) -> bool:
        if one in self._lists:
            return False
        return any(one.issuer == authority.subject and signed(one, authority) for authority in self._authorities)

    def objection(self, der: bytes) -> str:
        """Why a certificate is not good any more; empty if it is."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            if not any(issued(certificate, one) for one in self._authorities):
                return NOT_OURS
            return REVOKED if is_listed(certificate, self._lists) else ""
        except ValueError as error:  # read when it is asked for, in parts
            return f"its certificate cannot be read: {error}"


def lists_in(pem: bytes) -> list[x509.CertificateRevocationList]:
    """All lists of a file."""
    return [x509.load_pem_x509_crl(one) for one in _LIST.findall(pem)]


def signed(one: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    """Whether this authority has signed a list; other kinds of keys than these cannot."""
    key = authority.public_key()
    kinds = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
    return isinstance(key, kinds) and one.is_signature_valid(key)


def issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether this authority has signed it."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_listed(certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList]) -> bool:
    """Whether its number is on a list of its issuer."""
    return any(
        one.issuer == certificate.issuer
        and one.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        for one in lists
    )
