"""The TLS of sysprocd's TCP sockets: from four files to an `ssl.SSLContext`, made again when one of them has changed.

    1.3 and nothing older; HTTP/2 by ALPN; callers show a certificate of our authority, not revoked by its list
    no session tickets: each connection shows its certificate, so what was revoked or has expired cannot resume

Before a context is used it shakes hands with itself, in memory: OpenSSL then says whether a caller could trust the
certificate that we show, and whether the list of revoked ones can be used. What does not pass is refused at start, and
later leaves the earlier one in its place, but for what a good list revokes. Who a certificate stands for is in
`sysproc.server.identity`.
"""

import os
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from sysproc.errors import FailedPrecondition
from sysproc.server.handshake import ALPN, TellingContext
from sysproc.server.identity import domain_of, identity_of
from sysproc.server.settings import TlsFiles
from sysproc.server.standing import Standing

log = structlog.get_logger()

# What tells a file from the one that was in its place before.
Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class Tls:
    """What a new connection is met with: the context, and the trust domain that callers have to be of.

    standing: what is asked of each caller once more, and of those who are there when this comes.
    """

    context: ssl.SSLContext
    domain: str
    standing: Standing


class ServerTls:
    """The present `Tls` of some files. Raises FailedPrecondition if they are no good from the start."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamps = stamps(files)
        self._present = load(files)

    def present(self) -> Tls:
        """Of the files as they are now, or, if they are no good, of those before. Asked often: takes microseconds."""
        now = stamps(self._files)
        if now != self._stamps:
            self._stamps = now
            self._reload()
        return self._present

    def _reload(self) -> None:
        try:
            self._present = load(self._files)
        except (FailedPrecondition, OSError) as why:
            log.error("new TLS files are no good: the earlier ones stay in use", error=str(why))
            self._revoke()
        else:
            log.info("TLS files were read again", domain=self._present.domain)

    def _revoke(self) -> None:
        """What the list says counts all the same, be it only that our own certificate was not renewed in time."""
        try:
            standing = self._present.standing.with_lists(self._files.crl.read_bytes())
        except (ValueError, OSError):
            return  # the list is what is no good
        self._present = replace(self._present, standing=standing)


def stamps(files: TlsFiles) -> Mapping[Path, Stamp | None]:
    """Of each file what changes when it is replaced or written; None where there is none."""
    return {path: stamp(path) for path in files.all()}


def stamp(path: Path) -> Stamp | None:
    """Of one file; None if it cannot be looked at."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size


def load(files: TlsFiles) -> Tls:
    """Read the files, try them out. Raises FailedPrecondition that says which is no good, why, and what to do."""
    for path in files.all():
        check_readable(path)
    check_private(files.key)
    context = TellingContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    trust(context, files)
    show(context, files)
    domain = files.domain or domain_of(context.get_ca_certs())
    if domain is None:
        raise unusable(
            files.ca, "it names no trust domain (one URI SAN spiffe://DOMAIN)", "Name the domain by --tls-domain."
        )
    context.accept = partial(identity_of, domain=domain)
    rehearse(context, files)
    return Tls(context, domain, standing_of(files))


def trust(context: ssl.SSLContext, files: TlsFiles) -> None:
    """What both sides have in common: the version, HTTP/2, the authority, what it has revoked."""
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    for path, what in ((files.ca, "a certificate authority"), (files.crl, "a list of revoked certificates")):
        before = context.cert_store_stats()
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as error:
            raise unusable(path, f"it does not hold {what} as PEM ({error.reason or error})") from error
        kind = "x509_ca" if path is files.ca else "crl"
        if context.cert_store_stats()[kind] == before[kind]:
            raise unusable(path, f"it does not hold {what}")


def standing_of(files: TlsFiles) -> Standing:
    """The same authority and list for connections that are open."""
    try:
        return Standing(files.ca.read_bytes(), files.crl.read_bytes())
    except ValueError as error:
        raise unusable(files.ca, f"this or {files.crl} cannot be read again ({error})") from error


def show(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Our own certificate and key."""
    try:
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise unusable(files.cert, f"{files.key} is not its key") from error
        why = f"this and {files.key} are not a certificate and its unencrypted key as PEM ({error.reason or error})"
        raise unusable(files.cert, why) from error


def rehearse(server: ssl.SSLContext, files: TlsFiles) -> None:
    """Shake hands with ourselves as a caller would, as far as the caller's judgement of our certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    trust(client, files)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (caller, ours, caller):
            advance(side)
    except ssl.SSLCertVerificationError as error:
        about_list = "CRL" in error.verify_message
        raise unusable(files.crl if about_list else files.cert, error.verify_message) from error
    except ssl.SSLError as error:
        raise unusable(files.cert, error.reason or str(error)) from error


def advance(side: ssl.SSLObject) -> None:
    """One step of a handshake: until it wants to hear from the other side."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return


def check_readable(path: Path) -> None:
    """Raises FailedPrecondition for a file that is not there or closed."""
    try:
        with path.open("rb"):
            return
    except FileNotFoundError as error:
        raise unusable(path, "it does not exist") from error
    except OSError as error:
        raise unusable(path, error.strerror or str(error)) from error


def check_private(key: Path) -> None:
    """Raises FailedPrecondition for a key that others than root, or this user, can read."""
    seen = key.stat()
    if stat.S_IMODE(seen.st_mode) & 0o077 or seen.st_uid not in (0, os.geteuid()):
        raise unusable(
            key,
            "others can read it, so it is no secret",
            f"Close it (chown root {key}; chmod 600 {key}), and renew it.",
        )


def unusable(path: Path, why: str, resolution: str = "") -> FailedPrecondition:
    """The error for a file that TLS cannot be begun with."""
    return FailedPrecondition(
        f"{path} cannot be used for TLS: {why}.",
        resolution=resolution
        or f"`sysproc cert init {path.parent} --host NAME` makes all files; `sysproc cert issue --server NAME --dir "
        f"{path.parent}` renews the server's; --tls-dir, --tls-cert, --tls-key, --tls-ca and --tls-crl name others.",
        reason="BAD_TLS_FILES",
    )
