"""Callers by TLS at the relay: hands are shaken beside each other, in a bounded number, and bytes come through."""

import asyncio
import os
import socket
import ssl
from pathlib import Path

import pytest
import uvloop

from sysproc.server import remote
from sysproc.server.peer import Caller, Remote
from tests.unit.server.authorities import client_context, with_uris
from tests.unit.server.remote_scene import LoopFactory, Scene, answered, ended, run
from tests.unit.server.test_relay import until


def test_bytes_come_back_unchanged_and_the_caller_is_known(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            reader, writer = await shown.call()
            sent = os.urandom(3_000_000)

            async def send() -> None:
                writer.write(sent)
                await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(len(sent)) == sent
            await sending
            ((_, caller),) = shown.behind.seen
            host, port = writer.get_extra_info("sockname")
            (serial,) = (one.serial for one in shown.authority.issued() if one.what == "client")
            there = Remote("spiffe://sysproc/host", serial, f"{host}:{port}")
            assert caller == Caller(None, 0, 0, authority=True, remote=there)
            assert str(caller) == "spiffe://sysproc/host"
            writer.close()

    run(loop_factory, scene())


def test_a_client_that_does_not_read_stops_the_server_from_sending(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            _, writer = await shown.call()
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too
            sent = 0
            while sent < 100_000_000:
                writer.write(bytes(65536))
                sent += 65536
                try:
                    await asyncio.wait_for(writer.drain(), 1)
                except TimeoutError:
                    break
            assert sent < 50_000_000
            writer.transport.abort()
            await until(lambda: shown.behind.open == 0)

    run(loop_factory, scene())


def test_half_open_handshakes_push_out_each_other_and_nobody_else(
    tmp_path: Path, loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "HANDSHAKES", 8)

    async def scene() -> None:
        async with answered(tmp_path) as shown:
            silent = [await shown.silent() for _ in range(40)]
            for _ in range(5):
                reader, writer = await shown.call()
                writer.write(b"x")
                assert await reader.readexactly(1) == b"x"
                writer.close()
            await until(lambda: shown.refusals("the oldest is ended") >= 32)
            for sock in silent:
                sock.close()
            await until(lambda: shown.behind.open == 0)

    run(loop_factory, scene())


def test_who_says_nothing_is_let_go_and_nothing_stays_open(
    tmp_path: Path, loop_factory: LoopFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysproc.server.handshake.HANDSHAKE_S", 0.2)

    async def scene() -> None:
        async with answered(tmp_path) as shown:
            before = len(os.listdir("/proc/self/fd"))
            sock = await shown.silent()
            assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
            sock.close()
            await until(lambda: shown.refusals("no handshake within") == 1)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)

    run(loop_factory, scene())


@pytest.mark.parametrize("said", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", os.urandom(64), b""])
def test_what_is_no_tls_is_refused_once_and_leaves_nothing(
    tmp_path: Path, loop_factory: LoopFactory, said: bytes
) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            before = len(os.listdir("/proc/self/fd"))
            sock = await shown.silent()
            sock.send(said)
            sock.shutdown(socket.SHUT_WR)
            loop = asyncio.get_running_loop()
            while await loop.sock_recv(sock, 100):
                pass
            sock.close()
            await until(lambda: [event["event"] for event in shown.logs].count("connection refused") == 1)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert shown.behind.seen == []

    run(loop_factory, scene())


def test_a_certificate_that_is_not_ours_lets_nobody_in(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            for uris, why in (((), "0 URI SANs"), (("spiffe://elsewhere/host",), "trust domain")):
                streams = await shown.call_with(with_uris(shown.authority, *uris))
                assert await ended(streams)
                streams[1].close()
                await until(lambda why=why: shown.refusals(why) == 1)  # type: ignore[misc]  # it is called at once
            assert shown.behind.seen == []

    run(loop_factory, scene())


def test_a_session_is_never_resumed(tmp_path: Path) -> None:
    """A resumed one would not show its certificate again, which may be revoked by then."""

    def talk(shown: Scene, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bool, int]:
        with socket.create_connection(("127.0.0.1", shown.port)) as sock:
            tls = context.wrap_socket(sock, server_hostname="127.0.0.1", session=session)
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            return bool(tls.session_reused), 0 if tls.session is None else int(tls.session.has_ticket)

    async def scene() -> None:
        async with answered(tmp_path) as shown:
            pair = shown.authority.issue_client(None)
            context = client_context(shown.authority.directory / "ca.pem", pair)
            assert await asyncio.to_thread(talk, shown, context, None) == (False, 0)

    run(uvloop.new_event_loop, scene())
