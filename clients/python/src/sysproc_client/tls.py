"""How to call a service on another machine: the three files of mutual TLS, and why that did not come about.

Which endpoint is called is in `sysproc_client.connection`; the files are made by `sysproc cert`
(`sysproc_client.certificates`).
"""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from sysproc_client._core.errors import InvalidArgument, SysprocError, Unavailable, answer_lost_for_good, cannot_reach
from sysproc_client.endpoint import host_and_port

ALPN = "h2"
VARIABLES = {"ca": "SYSPROC_TLS_CA", "cert": "SYSPROC_TLS_CERT", "key": "SYSPROC_TLS_KEY"}
TRIAL_S = 1.0
# gRPC's words for having given up; the last is a handshake that nobody answered.
WAITED = re.compile(r"[Tt]imeout|[Tt]imed out|[Dd]eadline|Endpoint closing")
ISSUE = "Get another certificate: `sysproc cert issue` beside the authority."
ISSUE_FOR_IT = "Is it for this service (one URI SAN, of its trust domain), or are too many connected? Its log says why."
BE_WHO_READS = "Name files that are there, as a user who can read them."
NO_SYSPROCD = "Is it the port of a sysprocd, of this version?"
# What the service says of our certificate, as alerts of TLS are named.
ALERTS = {
    "EXPIRED": ("our certificate has expired", ISSUE),
    "BAD_CERTIFICATE": ("our certificate is not valid yet by its clock, or damaged", "Compare the clocks."),
    "UNSUPPORTED_CERTIFICATE": ("our certificate is not one for callers", ISSUE),
    "REVOKED": ("our certificate was revoked", ISSUE),
    "UNKNOWN_CA": ("our certificate is not of its authority", "Show one that its authority has issued, by --tls-cert."),
    "CERTIFICATE_REQUIRED": ("it wants a certificate of us", "Name one by --tls-cert and --tls-key."),
    "PROTOCOL_VERSION": ("it knows no TLS 1.3", NO_SYSPROCD),
}
# What was heard instead of TLS, as OpenSSL names it.
NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
# What is wrong with the certificate that the service shows: a part of OpenSSL's words, and what to do.
DISTRUST = (
    ("expired", "Renew it there: `sysproc cert issue --server NAME`; sysprocd takes it without a restart."),
    ("not yet valid", "Compare the clocks of both machines."),
    ("mismatch", "Call it by a name in its certificate, or have one with this name: `sysproc cert issue --server`."),
    ("", "Name its authority by --tls-ca: the ca.pem beside which its certificate was made."),
)


@dataclass(frozen=True)
class Tls:
    """Files for calls over TCP. ca: whose certificate the service has; cert and key: who we are."""

    ca: str | os.PathLike[str]
    cert: str | os.PathLike[str]
    key: str | os.PathLike[str]

    @classmethod
    def chosen(cls, given: Mapping[str, str | None]) -> "Tls":
        """What is given, else what the environment names. Raises InvalidArgument that says what is missing."""
        found = {name: given.get(name) or os.environ.get(variable) for name, variable in VARIABLES.items()}
        if missing := [name for name, path in found.items() if not path]:
            options, variables = (", ".join(text) for text in zip(*map(both_spellings, missing), strict=True))
            raise bad_files(
                f"A service at tcp:// is called by mutual TLS: {options} (or {variables}) not given.",
                "`sysproc cert issue` beside its authority makes the files.",
            )
        return cls(**{name: str(path) for name, path in found.items()})

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises InvalidArgument for a file that cannot be used."""
        self.context()
        return grpc.ssl_channel_credentials(content(self.ca), content(self.key), content(self.cert))

    def context(self) -> ssl.SSLContext:
        """For a trial with Python's own ssl. Raises InvalidArgument for a file that cannot be used."""
        for path in (self.ca, self.cert, self.key):
            content(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([ALPN])
        try:
            context.load_verify_locations(self.ca)
            context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        except ssl.SSLError as error:
            what = f"{os.fspath(self.ca)}, {os.fspath(self.cert)} and {os.fspath(self.key)}"
            raise bad_files(
                f"{what} are not an authority, a certificate and its key as PEM: {error.reason or error}.", ISSUE
            ) from error
        return context


def both_spellings(name: str) -> tuple[str, str]:
    """The option and the variable that name a file."""
    return f"--tls-{name}", VARIABLES[name]


def content(path: str | os.PathLike[str]) -> bytes:
    """What a file holds. Raises InvalidArgument."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise bad_files(f"{os.fspath(path)} cannot be read for TLS: {error.strerror}.", BE_WHO_READS) from error


def bad_files(message: str, resolution: str) -> InvalidArgument:
    """The error for files that TLS cannot be begun with."""
    return InvalidArgument(message, reason="BAD_TLS_FILES", resolution=resolution)


def explained(failure: SysprocError, endpoint: str, tls: Tls) -> SysprocError:
    """Say why a service could not be called, by trying again in a way that tells more than gRPC does.

    Where gRPC has waited in vain that is not done: it would be as long again.
    """
    host, port = host_and_port(endpoint)
    try:
        if WAITED.search(failure.message):
            raise TimeoutError
        with socket.create_connection((host, port), timeout=TRIAL_S) as sock:
            return judged(endpoint, tls, sock, host) or failure
    except TimeoutError:
        return cannot_reach(endpoint, "nobody answers in time", "Is sysprocd running there, and the way to it open?")
    except socket.gaierror as error:
        return cannot_reach(endpoint, f"{host} has no address ({error.strerror})", "Mend its name in --endpoint.")
    except ConnectionRefusedError:
        return cannot_reach(endpoint, "nobody listens there", f"Start sysprocd there with --listen {endpoint}.")
    except OSError as error:
        return cannot_reach(endpoint, error.strerror or str(error), "Is the way to it open?")


def check_let_in(endpoint: str, tls: Tls) -> None:
    """Of a service whose connection was lost: raise Unavailable if it refuses us, so that it is waited for in vain."""
    host, port = host_and_port(endpoint)
    try:
        with socket.create_connection((host, port), timeout=TRIAL_S) as sock:
            refused = judged(endpoint, tls, sock, host)
    except OSError:
        return  # not back yet
    if refused is not None:
        raise answer_lost_for_good(endpoint, refused)


def judged(endpoint: str, tls: Tls, sock: socket.socket, host: str) -> Unavailable | None:
    """Shake hands, and listen to what the service makes of our certificate; None: it answers now."""
    shaken = False
    try:
        with tls.context().wrap_socket(sock, server_hostname=host) as secured:
            shaken = True
            said = secured.recv(1)
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message
        resolution = next(what for word, what in DISTRUST if word in why)
        return cannot_reach(endpoint, f"the certificate that it shows cannot be trusted: {why}", resolution)
    except ssl.SSLError as error:
        return without_tls(endpoint, error.reason or str(error))
    except ConnectionError:
        said = b""
    if said:
        return None
    if not shaken:
        return cannot_reach(endpoint, "it ends the connection instead of speaking TLS", NO_SYSPROCD)
    return cannot_reach(endpoint, "our certificate is genuine, but it lets nobody in with it", ISSUE_FOR_IT)


def without_tls(endpoint: str, reason: str) -> Unavailable:
    """The error for a handshake that failed, by OpenSSL's name for how."""
    if any(word in reason for word in NO_TLS):
        return cannot_reach(endpoint, "it does not speak TLS", NO_SYSPROCD)
    for word, (why, resolution) in ALERTS.items():
        if word in reason:
            return cannot_reach(endpoint, f"it refuses us: {why}", resolution)
    return cannot_reach(endpoint, f"no TLS comes about: {reason}", "Its log says more; is it sysprocd?")
