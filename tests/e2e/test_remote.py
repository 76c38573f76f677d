"""Callers on other machines: who is let in by mutual TLS, who is refused and why, and what changes while it runs."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sysproc_client import Chunk, Client, LimitExceeded, PermissionDenied, Process, Tls, Unavailable
from sysproc_client.aio import AsyncClient
from sysproc_client.certificates import Authority, Pair, Validity
from tests.e2e.conftest import logged_on_failure
from tests.e2e.daemon import DaemonFailed, RunningDaemon
from tests.e2e.inside import script_inside
from tests.unit.server.authorities import EXPIRED, NOT_YET, authority, client_context, with_uris
from tests.waiting import wait_until

CLIENT_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the daemon trusts."""
    return authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture(scope="module")
def daemon(port: int, ours: Authority) -> Iterator[RunningDaemon]:
    """A sysprocd that listens on TCP as well."""
    listen = (f"--listen=tcp://localhost:{port}", f"--listen=tcp://[::1]:{port}", f"--tls-dir={ours.directory}")
    with RunningDaemon(options=listen) as running, Client(running.endpoint) as client:
        with logged_on_failure(running):
            client.create(image="busybox").destroy()
        yield running


@pytest.fixture
def remotely(port: int, ours: Authority) -> "Remotely":
    return Remotely(port, ours)


class Remotely:
    """Clients with certificates of all sorts."""

    def __init__(self, port: int, ours: Authority) -> None:
        self.port, self.ours = port, ours
        self.ca = ours.directory / "ca.pem"

    def client(self, pair: Pair | None = None, *, host: str = "127.0.0.1", ca: Path | None = None) -> Client:
        pair = pair or self.ours.issue_client(None)
        return Client(f"tcp://{host}:{self.port}", tls=Tls(ca or self.ca, pair.cert, pair.key))

    def raw(self, context: ssl.SSLContext) -> bytes:
        """What the server says to a client of HTTP/2 with this context; empty if nothing."""
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=30) as sock,
                context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
            ):
                tls.sendall(CLIENT_PREFACE)
                return tls.recv(100)
        except (ssl.SSLError, ConnectionError):
            return b""


def refusals(daemon: RunningDaemon, words: str) -> int:
    """How many lines of the log tell of a refused connection with these words."""
    lines = [line for line in daemon.log.read_text().splitlines() if "connection refused" in line]
    return sum(words in line and re.search(r"peer=(127\.0\.0\.1|\[::1\]):\d+", line) is not None for line in lines)


# -- who is let in


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_the_hosts_certificate_has_the_authority_of_its_root(remotely: Remotely, host: str) -> None:
    with remotely.client(host=host) as client:
        me = client.whoami()
        assert (me.container_id, me.uid, me.pid, me.authority) == (0, 0, 0, True)
        assert me.remote_identity == "spiffe://sysproc/host"
        box = client.create()
        assert box.run(["cat"], input=bytes(300_000)).stdout == bytes(300_000)
        box.destroy()


async def test_a_program_of_asyncio_is_let_in_and_refused_as_any_other(remotely: Remotely, tmp_path: Path) -> None:
    pair, strange = remotely.ours.issue_client(None), authority(tmp_path / "ca").issue_client(None)
    endpoint = f"tcp://127.0.0.1:{remotely.port}"
    async with AsyncClient(endpoint, tls=Tls(remotely.ca, pair.cert, pair.key)) as client, client.create() as box:
        assert (await box.run(["cat"], input=bytes(300_000))).stdout == bytes(300_000)
    async with AsyncClient(endpoint, tls=Tls(remotely.ca, strange.cert, strange.key)) as client:
        with pytest.raises((PermissionDenied, Unavailable), match="certificate"):
            await client.whoami()


def test_a_containers_certificate_has_the_authority_of_its_root_and_no_more(
    remotely: Remotely, client: Client, ours: Authority
) -> None:
    box, stranger = client.create(name="mine"), client.create(name="strange")
    with remotely.client(ours.issue_client(box.id)) as inside:
        me = inside.whoami()
        assert (f"{me.container_id:016x}", me.container_name, me.uid, me.authority) == (box.id, "mine", 0, True)
        child = inside.create(name="child")
        assert [one.id for one in inside.list()] == [box.id, child.id]
        with pytest.raises(PermissionDenied):
            inside.get(stranger.id)


def test_it_ends_with_its_container_and_not_before(remotely: Remotely, client: Client, ours: Authority) -> None:
    box = client.create()
    with remotely.client(ours.issue_client(box.id)) as inside:
        box.stop()
        assert inside.whoami().authority
        box.destroy()
        with pytest.raises(PermissionDenied, match="there is no container"):
            wait_until(lambda: refused_by_the_service(inside), "the connection has ended")
            inside.whoami()


def refused_by_the_service(client: Client) -> bool:
    """Whether a call is answered with a refusal; a call may also be what notices that the connection has ended."""
    try:
        client.whoami()
    except PermissionDenied:
        return True
    except Unavailable:
        return False
    return False


def test_a_remote_root_does_not_share_request_ids_with_the_local_one(remotely: Remotely, client: Client) -> None:
    number = "7b5f0e52-9c1a-4c3e-8f43-0d1f8a8b5e11"
    here = client.create(request_id=number)
    with remotely.client() as there, remotely.client() as renewed:
        box = there.create(request_id=number)
        assert box.id != here.id
        assert renewed.create(request_id=number).id == box.id


# -- who is not


def test_no_longer_not_yet_and_never_good_certificates_are_refused_and_told_why(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority, tmp_path: Path
) -> None:
    revoked = ours.issue_client(None)
    ours.revoke(revoked.issued.serial)
    other = authority(tmp_path / "other")
    for pair, logged, told in (
        (ours.issue_client(None, EXPIRED), "certificate has expired", "expired"),
        (ours.issue_client(None, NOT_YET), "certificate is not yet valid", "refuses us"),
        (revoked, "certificate revoked", "revoked"),
        (other.issue_client(None), "unable to get local issuer certificate", "not of its authority"),
        (Pair(ours.directory / "server.pem", ours.directory / "server.key", revoked.issued), "purpose", "refuses us"),
    ):
        before = refusals(daemon, logged)
        with remotely.client(pair) as client, pytest.raises(Unavailable, match=told) as refused:
            client.whoami()
        assert refused.value.resolution
        wait_until(lambda before=before, logged=logged: refusals(daemon, logged) > before, logged)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("uris", "why"),
    [
        ((), "0 URI SANs"),
        (("spiffe://sysproc/host", "spiffe://sysproc/host2"), "2 URI SANs"),
        (("spiffe://elsewhere/host",), "trust domain"),
        (("spiffe://sysproc/root",), "neither"),
        (("spiffe://sysproc/container/0000000000000000",), "neither"),
    ],
)
def test_a_certificate_that_names_nobody_lets_nobody_in(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority, uris: tuple[str, ...], why: str
) -> None:
    before = refusals(daemon, why)
    with (
        remotely.client(with_uris(ours, *uris)) as client,
        pytest.raises(Unavailable, match="lets nobody in") as refused,
    ):
        client.whoami()
    assert "URI SAN" in refused.value.resolution
    assert refusals(daemon, why) > before


def test_a_certificate_for_a_container_that_does_not_exist_is_told_so_by_each_call(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority
) -> None:
    pair = ours.issue_client("00c0ffee00c0ffee")
    before = refusals(daemon, "there is no container")
    with remotely.client(pair) as client:
        for call in (client.whoami, client.list, client.create):
            with pytest.raises(PermissionDenied, match="there is no container 00c0ffee00c0ffee") as refused:
                call()
            assert "sysproc cert issue" in refused.value.resolution
    assert refusals(daemon, "there is no container") == before + 1


def test_the_audit_log_names_the_certificate(
    remotely: Remotely, client: Client, daemon: RunningDaemon, ours: Authority
) -> None:
    box, stranger = client.create(), client.create()
    pair = ours.issue_client(box.id)
    with remotely.client(pair) as inside, pytest.raises(PermissionDenied):
        inside.get(stranger.id)
    (line,) = (one for one in daemon.log.read_text().splitlines() if "audit" in one and pair.issued.serial in one)
    assert f"certificate={pair.issued.serial}" in line
    assert f"caller_identity=spiffe://sysproc/container/{box.id}" in line
    assert stranger.id in line


def watched(process: Process) -> Generator[Chunk, None, None]:
    """The stream of a process that runs `cat`, until it is closed."""

    def stream() -> Generator[Chunk, None, None]:
        yield from process

    process.stdin.write(b"x")
    output = stream()
    next(output)
    return output


def test_callers_inside_and_outside_a_container_share_its_limits(ours: Authority) -> None:
    there = Remotely(free_port(), ours)
    listen = (f"--listen=tcp://127.0.0.1:{there.port}", f"--tls-dir={ours.directory}", "--calls-per-container=3")
    with RunningDaemon(options=listen) as running, Client(running.endpoint) as client:
        box = client.create()
        asks = "answer = client.whoami().authority"
        with there.client(ours.issue_client(box.id)) as outside:
            streams = [watched(outside.get(box.id).exec(["cat"])) for _ in range(3)]
            with pytest.raises(LimitExceeded, match="too many calls"):
                outside.whoami()
            assert script_inside(box, asks) == ["LimitExceeded", "TOO_MANY_CALLS"]
            streams.pop().close()
            wait_until(lambda: script_inside(box, asks) is True, "there is room for a call again")


def test_who_does_not_do_as_it_should_is_refused_once(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority
) -> None:
    old = client_context(remotely.ca, ours.issue_client(None))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, why in (
        (old, "it knows no TLS 1.3"),
        (client_context(remotely.ca, None), "it shows no certificate"),
        (client_context(remotely.ca, ours.issue_client(None), alpn=False), "ALPN h2"),
    ):
        before = refusals(daemon, why)
        assert remotely.raw(context) == b""
        wait_until(lambda before=before, why=why: refusals(daemon, why) == before + 1, why)  # type: ignore[misc]
    assert remotely.raw(client_context(remotely.ca, ours.issue_client(None))) != b""


def test_without_tls_nothing_is_answered(remotely: Remotely, daemon: RunningDaemon) -> None:
    before = refusals(daemon, "it does not speak TLS")
    with socket.create_connection(("127.0.0.1", remotely.port), timeout=30) as sock:
        sock.sendall(CLIENT_PREFACE)
        answer = b""
        while part := sock.recv(100):
            answer += part
    # At most an alert of TLS: record type 21.
    assert answer == b"" or answer[0] == 21
    wait_until(lambda: refusals(daemon, "it does not speak TLS") == before + 1, "it is logged")


def test_a_flood_of_half_open_handshakes_stops_nobody(remotely: Remotely, daemon: RunningDaemon) -> None:
    silent: list[socket.socket] = []
    try:
        for number in range(600):
            silent.append(socket.create_connection(("127.0.0.1", remotely.port), timeout=30))
            if number % 150 == 149:
                with remotely.client() as client:
                    assert client.whoami().authority
        assert refusals(daemon, "the oldest is ended") > 0
    finally:
        for sock in silent:
            sock.close()


# -- what changes while it runs


def test_a_renewed_certificate_is_shown_without_a_restart(remotely: Remotely, ours: Authority) -> None:
    def shown() -> int:
        pair = ours.issue_client(None)
        context = client_context(remotely.ca, pair)
        with (
            socket.create_connection(("127.0.0.1", remotely.port), timeout=30) as sock,
            context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
        ):
            certificate = tls.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)

    before = shown()
    renewed = ours.issue_server(["localhost", "127.0.0.1", "::1"])
    assert shown() == int(renewed.issued.serial, 16) != before


def test_a_broken_renewal_changes_nothing_and_is_said_so(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority
) -> None:
    file = ours.directory / "server.pem"
    good = file.read_bytes()
    file.write_bytes(b"broken")
    try:
        with remotely.client() as client:
            assert client.whoami().authority
    finally:
        file.write_bytes(good)
    assert "the earlier ones stay in use" in daemon.log_text()
    with remotely.client() as client:
        assert client.whoami().authority


def test_what_is_revoked_is_refused_without_a_restart(
    remotely: Remotely, daemon: RunningDaemon, ours: Authority
) -> None:
    """A connection that is open ends with its next call, and the client knows that waiting is in vain."""
    pair = ours.issue_client(None)
    with remotely.client(pair) as client, remotely.client() as other:
        assert client.whoami().authority and other.whoami().authority
        ours.revoke(str(pair.cert))
        with pytest.raises(Unavailable, match="revoked"):
            client.whoami()
        assert other.whoami().authority
    with remotely.client(pair) as client, pytest.raises(Unavailable, match="revoked"):
        client.whoami()
    assert any(pair.issued.serial in one and "revoked meanwhile" in one for one in daemon.log.read_text().splitlines())


def test_a_process_that_is_watched_is_not_any_more_when_its_watcher_is_revoked(
    remotely: Remotely, client: Client, ours: Authority
) -> None:
    box, pair = client.create(), ours.issue_client(None)
    with remotely.client(pair) as watcher:
        stream = watched(watcher.get(box.id).exec(["cat"]))
        ours.revoke(pair.issued.serial)
        with pytest.raises(Unavailable, match="revoked"):
            next(stream)
    assert any(one.argv[0] == b"cat" for one in box.ps())


def test_a_connection_ends_with_its_certificate(remotely: Remotely, ours: Authority) -> None:
    now = datetime.now(UTC)
    pair = ours.issue_client(None, Validity(now - timedelta(days=1), now + timedelta(seconds=3)))
    with remotely.client(pair) as client:
        assert client.whoami().authority
        with pytest.raises(Unavailable, match="expired"):
            wait_until(lambda: not client.whoami().authority, "its certificate has expired")


def test_a_restart_of_the_daemon_refuses_nobody(remotely: Remotely, daemon: RunningDaemon, ours: Authority) -> None:
    context = client_context(remotely.ca, ours.issue_client(None))
    daemon.kill9()
    answers: list[bytes] = []
    waiting = [threading.Thread(target=lambda: answers.append(remotely.raw(context))) for _ in range(8)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: connected(remotely.port) >= len(waiting), "they are in the backlog")
    daemon.start()
    for thread in waiting:
        thread.join(60)
    assert len(answers) == len(waiting)
    assert all(answers)


def test_a_process_that_is_watched_from_elsewhere_is_still_watched_after_a_restart(
    remotely: Remotely, client: Client, daemon: RunningDaemon
) -> None:
    box = client.create()
    with remotely.client() as there:
        process = there.get(box.id).exec(["cat"])
        stream = watched(process)
        daemon.kill9()
        daemon.start()
        process.stdin.write(b"y")
        process.stdin.close()
        assert b"".join(chunk.data for chunk in stream) == b"y"


def test_an_endpoint_that_was_taken_away_is_closed_and_can_come_back(ours: Authority) -> None:
    there = Remotely(free_port(), ours)
    listen = (f"--listen=tcp://127.0.0.1:{there.port}", f"--tls-dir={ours.directory}")
    with RunningDaemon(options=listen) as running:
        for options, answers in ((listen, True), ((), False), (listen, True)):
            running.options = options
            running.restart()
            with there.client() as client:
                if answers:
                    assert client.whoami().authority
                    continue
                with pytest.raises(Unavailable, match="nobody listens"):
                    client.whoami()


def connected(port: int) -> int:
    """How many connections this machine has to a port: proc_net(5), state 01, remote address of the client's side."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


# -- what the daemon and the command say


def test_the_daemon_does_not_start_with_files_that_are_no_good(ours: Authority, tmp_path: Path) -> None:
    for name in ("server.pem", "server.key", "ca.pem", "crl.pem"):
        shutil.copy2(ours.directory / name, tmp_path / name)
    (tmp_path / "server.key").chmod(0o640)
    running = RunningDaemon(options=(f"--listen=tcp://127.0.0.1:{free_port()}", f"--tls-dir={tmp_path}"))
    with pytest.raises(DaemonFailed, match="others can read it") as failed, running:
        pass
    assert "chmod 600" in str(failed.value)
    assert "Traceback" not in str(failed.value)


def test_a_port_that_somebody_has_is_said_so(ours: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = RunningDaemon(options=(f"--listen=tcp://127.0.0.1:{port}", f"--tls-dir={ours.directory}"))
        with pytest.raises(DaemonFailed, match=f"Cannot listen on tcp://127.0.0.1:{port}"), running:
            pass


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `sysproc`, without variables that name files of TLS."""
    call = [str(Path(sys.executable).with_name("sysproc")), *arguments]
    return subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_makes_the_files_and_uses_them(remotely: Remotely, daemon: RunningDaemon, ours: Authority) -> None:
    where = ("--dir", str(ours.directory))
    issued = json.loads(command("cert", "issue", *where, "--host", "--days", "3", "-o", "json").stdout)
    files = ("--tls-ca", issued["ca"], "--tls-cert", issued["cert"], "--tls-key", issued["key"])
    call = ("--endpoint", f"tcp://127.0.0.1:{remotely.port}", *files)
    assert json.loads(command(*call, "whoami", "-o", "json").stdout)["remote_identity"] == "spiffe://sysproc/host"
    assert command(*call, "run", "--", "sh", "-c", "exit 7").returncode == 7
    assert command("cert", "revoke", *where, issued["cert"]).stdout.strip() == issued["serial"]
    listed = {one["serial"]: one["state"] for one in json.loads(command("cert", "list", *where, "-o", "json").stdout)}
    assert listed[issued["serial"]] == "revoked"
    refused = command(*call, "whoami")
    assert refused.returncode
    assert "our certificate was revoked" in refused.stderr
    assert "Traceback" not in refused.stderr
