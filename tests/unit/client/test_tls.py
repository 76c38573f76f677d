"""What the client says of a service at tcp:// that cannot be called: each with the reason, and what to do."""

import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sysproc_client import Client, InvalidArgument, Tls, Unavailable
from sysproc_client.certificates import Authority, Validity
from sysproc_client.endpoint import host_and_port

COMMAND = str(Path(sys.executable).with_name("sysproc"))
NOW = datetime.now(UTC)
EXPIRED = Validity(NOW - timedelta(days=9), NOW - timedelta(days=1))
NOT_YET = Validity(NOW + timedelta(days=1), NOW + timedelta(days=9))

Answer = Callable[[socket.socket], object]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("tls") / "ca", "sysproc")


def client_of(port: int, ours: Authority) -> Client:
    pair = ours.issue_client(None)
    return Client(f"tcp://127.0.0.1:{port}", tls=Tls(ours.directory / "ca.pem", pair.cert, pair.key))


def shaking_hands(authority: Authority, names: list[str], validity: Validity | None = None) -> Answer:
    """A service by TLS with a certificate, which the caller may break off; it says nothing of HTTP/2."""
    pair = authority.issue_server(names, validity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2"])

    def shake(sock: socket.socket) -> None:
        with suppress(ssl.SSLError):
            context.wrap_socket(sock, server_side=True).close()

    return shake


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """The port of somebody who answers in a way, then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return  # closed: the test is over
                with sock, suppress(ConnectionError):
                    answer(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def told(port: int, ours: Authority) -> Unavailable:
    with client_of(port, ours) as client, pytest.raises(Unavailable) as refused:
        client.whoami()
    return refused.value


@pytest.mark.parametrize(
    ("names", "validity", "why", "to_do"),
    [
        (["127.0.0.1"], EXPIRED, "certificate has expired", "Renew it there"),
        (["127.0.0.1"], NOT_YET, "not yet valid", "Compare the clocks"),
        (["elsewhere.example.org"], None, "mismatch", "a name in its certificate"),
    ],
)
def test_what_is_wrong_with_the_certificate_of_a_service_is_said(
    ours: Authority, names: list[str], validity: Validity | None, why: str, to_do: str
) -> None:
    with answering(shaking_hands(ours, names, validity)) as port:
        error = told(port, ours)
    assert "that it shows cannot be trusted" in error.message
    assert why in error.message
    assert to_do in error.resolution


def test_a_service_of_another_authority_is_said_so(ours: Authority, tmp_path: Path) -> None:
    with answering(shaking_hands(Authority.create(tmp_path, "sysproc"), ["127.0.0.1"])) as port:
        error = told(port, ours)
    assert "cannot be trusted" in error.message
    assert "--tls-ca" in error.resolution


def test_a_service_that_hangs_up_after_the_handshake_is_said_so(ours: Authority) -> None:
    with answering(shaking_hands(ours, ["127.0.0.1"])) as port:
        error = told(port, ours)
    assert "lets nobody in" in error.message
    assert "URI SAN" in error.resolution


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\0\4\0\0\0\0\0", b""])
def test_a_service_without_tls_is_said_so(ours: Authority, answer: bytes) -> None:
    def says(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(answer)

    with answering(says) as port:
        error = told(port, ours)
    assert "speak" in error.message
    assert "sysprocd" in error.resolution


def test_a_service_that_knows_only_older_versions_is_said_so(ours: Authority) -> None:
    pair = ours.issue_server(["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def shake(sock: socket.socket) -> None:
        with suppress(ssl.SSLError):
            context.wrap_socket(sock, server_side=True).close()

    with answering(shake) as port:
        assert "TLS 1.3" in told(port, ours).message


def test_where_nobody_answers_that_is_said(ours: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "nobody answers in time" in told(port, ours).message
    error = told(port, ours)
    assert "nobody listens there" in error.message
    assert f"--listen tcp://127.0.0.1:{port}" in error.resolution


def test_files_that_are_missing_are_named(ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"SYSPROC_TLS_{name}", raising=False)
    done = subprocess.run(
        [COMMAND, "--endpoint", "tcp://127.0.0.1:1", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "--tls-ca, --tls-cert, --tls-key (or SYSPROC_TLS_CA" in done.stderr
    assert "sysproc cert issue" in done.stderr
    with pytest.raises(InvalidArgument, match="cannot be read"):
        Client("tcp://127.0.0.1:1", tls=Tls(tmp_path / "no", tmp_path / "no", tmp_path / "no"))
    ca = ours.directory / "ca.pem"
    with pytest.raises(InvalidArgument, match="a certificate and its key"):
        Client("tcp://127.0.0.1:1", tls=Tls(ca, ca, ca))


def test_files_are_named_by_the_environment_too(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ours.issue_client(None)
    for name, file in (("CA", ours.directory / "ca.pem"), ("CERT", pair.cert), ("KEY", pair.key)):
        monkeypatch.setenv(f"SYSPROC_TLS_{name}", str(file))
    with (
        answering(shaking_hands(ours, ["127.0.0.1"])) as port,
        Client(f"tcp://127.0.0.1:{port}") as client,
        pytest.raises(Unavailable, match="lets nobody in"),
    ):
        client.whoami()


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("tcp://box:7443", "box", 7443),
        ("tcp://192.0.2.1:1", "192.0.2.1", 1),
        ("tcp://[2001:db8::1]:9", "2001:db8::1", 9),
    ],
)
def test_an_endpoint_of_tcp_has_a_host_and_a_port(endpoint: str, host: str, port: int) -> None:
    assert host_and_port(endpoint) == (host, port)


@pytest.mark.parametrize("endpoint", ["tcp:", "tcp://box", "tcp://:1", "tcp://box:0", "tcp://box:65536", "tcp://::1:1"])
def test_what_is_no_endpoint_of_tcp_is_said_so(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match="no endpoint of TCP"):
        Client(endpoint)
