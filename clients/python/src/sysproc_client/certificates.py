"""A small certificate authority in a directory: who may call a service from another machine.

    ca.pem, ca.key          the authority: ECDSA P-256, ten years; its URI SAN is the trust domain, spiffe://DOMAIN
    server.pem, server.key  what sysprocd shows; DNS names and addresses
    crl.pem                 what was revoked; signed again at each revocation, valid as long as the authority
    issued.jsonl            one line for each certificate, written before the certificate itself
    host-…, container-…     what callers show: URI SAN spiffe://DOMAIN/host or spiffe://DOMAIN/container/ID

The list of revoked ones never ends before the authority does: a forgotten renewal locks nobody out, and a revocation
counts from the moment that the file is in its place. sysprocd needs neither ca.key nor issued.jsonl. What is asked
on the command line is in `sysproc_client.cli.certificates`; only this module needs the library `cryptography`.
"""

import fcntl
import ipaddress
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sysproc_client._core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sysproc_client._core.replacing import replace_file

CA_DAYS, SERVER_DAYS, CLIENT_DAYS = 3652, 397, 90
# Clocks differ a little: what is issued now has to be good on the other machine too.
BACKDATED = timedelta(minutes=5)
PRIVATE, PUBLIC = 0o600, 0o644

_DOMAIN = re.compile(r"[a-z0-9._-]{1,200}")
_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
_HOST_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is good."""

    begin: datetime
    end: datetime

    @classmethod
    def days(cls, days: int) -> "Validity":
        """From now on."""
        now = datetime.now(timezone.utc)
        return cls(now - BACKDATED, now + timedelta(days=days))


@dataclass(frozen=True)
class Issued:
    """One line of the index. serial: hexadecimal; what: `server` or `client`; names: what the certificate is for."""

    serial: str
    what: str
    names: Sequence[str]
    not_after: str
    file: str


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in their files."""

    cert: Path
    key: Path
    issued: Issued


class Authority:
    """The authority in a directory that `create` has made. Raises FailedPrecondition if there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._cert = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
            key = load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except FileNotFoundError as error:
            raise missing(Path(error.filename)) from error
        except (ValueError, TypeError) as error:
            raise damaged(directory, error) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self._cert.public_key():
            raise damaged(directory, ValueError("ca.key is not the key of ca.pem"))
        self._key: Key = key

    @classmethod
    def create(cls, directory: Path, domain: str, *, force: bool = False) -> "Authority":
        """A new one, with an empty list of revoked certificates. force: what is there is replaced.

        Raises AlreadyExists, InvalidArgument.
        """
        if not _DOMAIN.fullmatch(domain):
            raise bad(f"{domain!r} is no trust domain.", "Use small letters, digits, `.`, `_` and `-`.")
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        with locked(directory):
            if not force and any((directory / name).exists() for name in ("ca.pem", "ca.key")):
                raise exists(directory)
            key = new_key()
            replace_file(directory / "ca.key", pem_of(key), PRIVATE)
            replace_file(directory / "ca.pem", ca_certificate(key, domain).public_bytes(Encoding.PEM), PUBLIC)
            replace_file(directory / "issued.jsonl", b"", PUBLIC)
            authority = cls(directory)
            authority._write_crl([])
        return authority

    @property
    def domain(self) -> str:
        """The trust domain."""
        names = self._cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0].removeprefix("spiffe://")

    # -- issuing

    def issue_server(self, names: Sequence[str], validity: Validity | None = None) -> Pair:
        """A new certificate and key for sysprocd, in place of the present ones. names: host names and addresses."""
        if not names:
            raise bad("A server has at least one name or address by which it is reached.", "Name it.")
        san = [server_name(name) for name in names]
        out = self.directory / "server"
        return self._issue("server", san, list(names), validity or Validity.days(SERVER_DAYS), out)

    def issue_client(self, container_id: str | None, validity: Validity | None = None, out: Path | None = None) -> Pair:
        """A certificate and key for a caller: as the host's root, or as root of one container (16 hex digits).

        out: the files without `.pem` and `.key`; absent: names of their own in the directory.
        """
        if container_id is not None and not _ID.fullmatch(container_id):
            raise bad(f"{container_id!r} is no id of a container.", "Give 16 hex digits, as `sysproc list` shows them.")
        who = "host" if container_id is None else f"container/{container_id}"
        uri = f"spiffe://{self.domain}/{who}"
        san = [x509.UniformResourceIdentifier(uri)]
        return self._issue("client", san, [uri], validity or Validity.days(CLIENT_DAYS), out)

    def _issue(
        self, what: str, san: Sequence[x509.GeneralName], names: list[str], validity: Validity, out: Path | None
    ) -> Pair:
        key, serial = new_key(), x509.random_serial_number()
        cert = self._sign(what, key, serial, san, validity)
        out = out or self.directory / f"{names[0].partition('://')[2].partition('/')[2].replace('/', '-')}-{serial:x}"
        pair = Pair(
            out.with_name(out.name + ".pem"),
            out.with_name(out.name + ".key"),
            Issued(f"{serial:x}", what, names, cert.not_valid_after_utc.isoformat(), f"{out.absolute()}.pem"),
        )
        with locked(self.directory):
            self._note(pair.issued)
            replace_file(pair.key, pem_of(key), PRIVATE)
            replace_file(pair.cert, cert.public_bytes(Encoding.PEM), PUBLIC)
        return pair

    def _sign(
        self, what: str, key: Key, serial: int, san: Sequence[x509.GeneralName], validity: Validity
    ) -> x509.Certificate:
        usage = ExtendedKeyUsageOID.SERVER_AUTH if what == "server" else ExtendedKeyUsageOID.CLIENT_AUTH
        return (
            builder(key, f"sysproc {what}", serial, self._within_ours(validity))
            .issuer_name(self._cert.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(san), critical=False)
            .add_extension(self._issuer(), critical=False)
            .sign(self._key, SHA256())
        )

    def _within_ours(self, validity: Validity) -> Validity:
        """Nothing is good for longer than the authority, nor a list of what it has revoked."""
        return replace(validity, end=min(validity.end, self._cert.not_valid_after_utc))

    def _issuer(self) -> x509.AuthorityKeyIdentifier:
        ours = self._cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours)

    # -- the index, and what was revoked

    def issued(self) -> list[Issued]:
        """All certificates, in the order in which they were issued."""
        try:
            lines = (self.directory / "issued.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [Issued(**json.loads(line)) for line in lines]

    def revoked(self) -> frozenset[str]:
        """The serial numbers of all revoked certificates."""
        return frozenset(f"{one.serial_number:x}" for one in self._crl())

    def revoke(self, serial_or_file: str) -> str:
        """Revoke a certificate, by its serial number or its file; returns the number. Idempotent. Raises NotFound."""
        serial = self._serial(serial_or_file)
        with locked(self.directory):
            entries = list(self._crl())
            if all(one.serial_number != serial for one in entries):
                entry = (
                    x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(datetime.now(timezone.utc))
                )
                self._write_crl([*entries, entry.build()])
        return f"{serial:x}"

    def _serial(self, serial_or_file: str) -> int:
        known = {one.serial for one in self.issued()}
        if Path(serial_or_file).is_file():
            cert = x509.load_pem_x509_certificate(Path(serial_or_file).read_bytes())
            if cert.issuer == self._cert.subject and f"{cert.serial_number:x}" in known:
                return cert.serial_number
        elif (serial := serial_or_file.lower().replace(":", "").lstrip("0")) in known:
            return int(serial, 16)
        raise not_issued(serial_or_file, self.directory)

    def _note(self, issued: Issued) -> None:
        fd = os.open(self.directory / "issued.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PUBLIC)
        try:
            os.write(fd, json.dumps(asdict(issued)).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def _crl(self) -> Iterator[x509.RevokedCertificate]:
        try:
            crl = x509.load_pem_x509_crl((self.directory / "crl.pem").read_bytes())
        except FileNotFoundError as error:
            raise missing(Path(error.filename)) from error
        except ValueError as error:
            raise damaged(self.directory, error) from error
        if not crl.is_signature_valid(self._key.public_key()):
            raise damaged(self.directory, ValueError("crl.pem is of another authority"))
        return iter(crl)

    def _write_crl(self, entries: Sequence[x509.RevokedCertificate]) -> None:
        now = datetime.now(timezone.utc)
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._cert.subject)
            .last_update(now - BACKDATED)
            .next_update(self._cert.not_valid_after_utc)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
            .add_extension(self._issuer(), critical=False)
        )
        for entry in entries:
            crl = crl.add_revoked_certificate(entry)
        replace_file(self.directory / "crl.pem", crl.sign(self._key, SHA256()).public_bytes(Encoding.PEM), PUBLIC)


def new_key() -> Key:
    """A private key."""
    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Key) -> bytes:
    """A private key as its file has it; who may read the file has the key."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def builder(key: Key, name: str, serial: int, validity: Validity) -> x509.CertificateBuilder:
    """What all certificates have."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def ca_certificate(key: Key, domain: str) -> x509.Certificate:
    """The authority's own; it signs certificates of callers and servers, and none of another authority."""
    serial = x509.random_serial_number()
    # Two authorities must not have one name: lists of revoked certificates are found by it.
    name = f"sysproc {domain[:32]} {serial:x}"[:64]
    san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")])
    made = builder(key, name, serial, Validity.days(CA_DAYS))
    return (
        made.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(san, critical=False)
        .sign(key, SHA256())
    )


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """What a key is for, and nothing else."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def server_name(name: str) -> x509.GeneralName:
    """A host name or an address, as certificates have them. Raises InvalidArgument."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        if not _HOST_NAME.fullmatch(name.lower()):
            raise bad(
                f"{name!r} is neither the name of a host nor an address.", "Write box.example.org or 192.0.2.1."
            ) from None
        return x509.DNSName(name.lower())


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One after the other: whoever changes the directory waits for whoever does."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def bad(message: str, resolution: str) -> InvalidArgument:
    """The error for what no certificate can say."""
    return InvalidArgument(message, reason="BAD_CERTIFICATE", resolution=resolution)


def exists(directory: Path) -> AlreadyExists:
    """The error for an authority that would be overwritten."""
    return AlreadyExists(
        f"There is a certificate authority in {directory} already.",
        reason="AUTHORITY_EXISTS",
        resolution="Use another directory; --force replaces it, and what it has issued is void then.",
    )


def missing(file: Path) -> FailedPrecondition:
    """The error for a directory in which there is no authority."""
    return FailedPrecondition(
        f"{file} does not exist.",
        reason="NO_AUTHORITY",
        resolution=f"Name the directory of the authority by --dir, or make one: sysproc cert init {file.parent}",
    )


def damaged(directory: Path, error: Exception) -> FailedPrecondition:
    """The error for files that are no authority."""
    return FailedPrecondition(
        f"The certificate authority in {directory} cannot be used: {error}.",
        reason="BAD_AUTHORITY",
        resolution="Put its files back as they were.",
    )


def not_issued(serial_or_file: str, directory: Path) -> NotFound:
    """The error for a certificate that is not this authority's."""
    return NotFound(
        f"The authority in {directory} has issued no certificate {serial_or_file}.",
        reason="NOT_ISSUED",
        resolution="`sysproc cert list` shows all: name the serial number, or the file.",
    )
