"""Who was let in has what its container may have, and stays only as long as its certificate and container do."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sysproc.server.frames import HEADERS, PREFACE_BYTES
from sysproc.server.throttle import Rate
from sysproc_client.certificates import Authority, Validity
from tests.unit.server.authorities import EXPIRED
from tests.unit.server.remote_scene import CONTAINER, LoopFactory, answered, ended, run
from tests.unit.server.test_relay import listener, until
from tests.unit.server.test_throttle import frame


def test_a_container_ends_the_connections_that_have_its_identity(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            shown.containers = {CONTAINER, CONTAINER + 1}
            mine = [await shown.call(f"{CONTAINER:016x}") for _ in range(2)]
            other, host = await shown.call(f"{CONTAINER + 1:016x}"), await shown.call()
            await until(lambda: shown.behind.open == 4)
            assert {caller.container_id for _, caller in shown.behind.seen} == {CONTAINER, CONTAINER + 1, None}
            assert all(caller.authority for _, caller in shown.behind.seen)
            shown.let_in.gone(CONTAINER)
            assert [await ended(one) for one in mine] == [True, True]
            for reader, writer in (other, host):
                writer.write(b"y")
                assert await reader.readexactly(1) == b"y"
            for _, writer in (*mine, other, host):
                writer.close()

    run(loop_factory, scene())


def test_a_container_has_so_many_connections_and_no_more(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path, most=2) as shown:
            shown.containers = {CONTAINER}
            two = [await shown.call(f"{CONTAINER:016x}") for _ in range(2)]
            await until(lambda: shown.behind.open == 2)
            third = await shown.call(f"{CONTAINER:016x}")
            assert await ended(third)
            assert shown.refusals("more than 2 connections") == 1
            two[0][1].close()
            await until(lambda: shown.behind.open == 1)
            again = await shown.call(f"{CONTAINER:016x}")
            await until(lambda: shown.behind.open == 2)
            for _, writer in (*two, third, again):
                writer.close()

    run(loop_factory, scene())


def test_all_connections_of_a_container_share_its_rate_of_calls(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path, calls=Rate(per_second=0.001, burst=3)) as shown:
            shown.containers = {CONTAINER}
            first, second = [await shown.call(f"{CONTAINER:016x}") for _ in range(2)]
            first[1].write(bytes(PREFACE_BYTES) + 2 * frame(HEADERS))
            await first[0].readexactly(PREFACE_BYTES + 2 * len(frame(HEADERS)))
            second[1].write(bytes(PREFACE_BYTES) + 2 * frame(HEADERS))
            await second[0].readexactly(PREFACE_BYTES + len(frame(HEADERS)))
            host = await shown.call()
            host[1].write(bytes(PREFACE_BYTES) + 50 * frame(HEADERS))
            await host[0].readexactly(PREFACE_BYTES + 50 * len(frame(HEADERS)))
            # By then what is held back would have come, were it not held back.
            assert not second[0]._buffer  # type: ignore[attr-defined]  # what has come and was not read
            for _, writer in (first, second, host):
                writer.close()

    run(loop_factory, scene())


def test_a_container_that_connects_too_often_is_refused(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path, accepts=Rate(per_second=0.001, burst=2)) as shown:
            shown.containers = {CONTAINER}
            for _ in range(2):
                _, writer = await shown.call(f"{CONTAINER:016x}")
                await until(lambda: shown.behind.open == 1)
                writer.close()
                await until(lambda: shown.behind.open == 0)
            third = await shown.call(f"{CONTAINER:016x}")
            assert await ended(third)
            assert shown.refusals("connects too often") == 1
            third[1].close()

    run(loop_factory, scene())


def test_a_container_that_does_not_exist_has_no_caller(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            _, writer = await shown.call(f"{CONTAINER:016x}")
            await until(lambda: shown.behind.seen)
            ((_, caller),) = shown.behind.seen
            assert (caller.authority, "no container" in caller.refused) == (False, True)
            assert caller.container_id == CONTAINER
            assert shown.refusals("there is no container") == 1
            writer.close()

    run(loop_factory, scene())


def test_who_has_certificates_of_containers_that_do_not_exist_has_bounds_too(
    tmp_path: Path, loop_factory: LoopFactory
) -> None:
    async def scene() -> None:
        async with answered(tmp_path, most=2, calls=Rate(per_second=0.001, burst=3)) as shown:
            reader, writer = await shown.call(f"{CONTAINER:016x}")
            other = await shown.call(f"{CONTAINER + 1:016x}")
            assert await ended(await shown.call(f"{CONTAINER + 2:016x}"))
            writer.write(bytes(PREFACE_BYTES) + 4 * frame(HEADERS))
            await reader.readexactly(PREFACE_BYTES + 3 * len(frame(HEADERS)))
            for one in (writer, other[1]):
                one.close()

    run(loop_factory, scene())


def test_inside_and_outside_a_container_share_its_connections_and_calls(
    tmp_path: Path, loop_factory: LoopFactory
) -> None:
    """The whole bound for both together, whoever comes first; also after its socket was taken away and came back."""

    async def scene() -> None:
        async with answered(tmp_path, most=2, calls=Rate(per_second=0.001, burst=3)) as shown:
            shown.containers = {CONTAINER}
            own = listener(tmp_path / "own")
            shown.behind.relay.add_listener(CONTAINER, own.fileno(), os.geteuid())
            inside = await asyncio.open_unix_connection(tmp_path / "own")
            outside = await shown.call(f"{CONTAINER:016x}")
            await until(lambda: shown.behind.open == 2)
            assert await ended(await asyncio.open_unix_connection(tmp_path / "own"))
            assert await ended(await shown.call(f"{CONTAINER:016x}"))
            assert shown.refusals("more than 2 connections") == 1
            inside[1].write(bytes(PREFACE_BYTES) + 2 * frame(HEADERS))
            await inside[0].readexactly(PREFACE_BYTES + 2 * len(frame(HEADERS)))
            outside[1].write(bytes(PREFACE_BYTES) + 2 * frame(HEADERS))
            await outside[0].readexactly(PREFACE_BYTES + len(frame(HEADERS)))
            shown.behind.relay.remove_listener(CONTAINER)
            assert await ended(inside)
            shown.behind.relay.add_listener(CONTAINER, own.fileno(), os.geteuid())
            again = await asyncio.open_unix_connection(tmp_path / "own")
            again[1].write(bytes(PREFACE_BYTES) + frame(HEADERS))
            await again[0].readexactly(PREFACE_BYTES)
            for reader in (outside[0], again[0]):
                assert not reader._buffer  # type: ignore[attr-defined]  # what has come and was not read
            for _, writer in (inside, outside, again):
                writer.close()
            shown.behind.relay.remove_listener(CONTAINER)
            own.close()

    run(loop_factory, scene())


def test_a_revocation_ends_the_connection_that_was_made_with_it(tmp_path: Path, loop_factory: LoopFactory) -> None:
    """Nothing goes on that is sent after it, and who sends nothing is ended, too."""

    async def scene() -> None:
        async with answered(tmp_path) as shown:
            sends, listens, stays = [await shown.call() for _ in range(3)]
            await until(lambda: shown.behind.open == 3)
            shown.revoke(0)
            sends[1].write(b"x")
            assert await ended(sends)
            shown.revoke(1)
            assert await ended(listens)
            stays[1].write(b"y")
            assert await stays[0].readexactly(1) == b"y"
            assert shown.refusals("revoked meanwhile") == 2
            await until(lambda: shown.behind.open == 1)
            for _, writer in (sends, listens, stays):
                writer.close()
            await until(lambda: len(shown.let_in) == 0)

    run(loop_factory, scene())


def test_a_revocation_counts_though_the_server_was_not_renewed_in_time(
    tmp_path: Path, loop_factory: LoopFactory
) -> None:
    """Whoever does not look at our certificate must not profit from its being too old to be read again."""

    async def scene() -> None:
        async with answered(tmp_path) as shown:
            pair = shown.authority.issue_client(None)
            streams = await shown.call_with(pair)
            await until(lambda: shown.behind.open == 1)
            shown.authority.issue_server(["127.0.0.1"], EXPIRED)
            shown.revoke(0)
            streams[1].write(b"x")
            assert await ended(streams)
            assert await ended(await shown.call_with(pair))
            assert shown.refusals("revoked meanwhile") == 2
            reader, writer = await shown.call()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()

    run(loop_factory, scene())


def test_a_connection_ends_with_its_certificate(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            now = datetime.now(UTC)
            streams = await shown.call(None, Validity(now - timedelta(days=1), now + timedelta(seconds=2)))
            streams[1].write(b"x")
            assert await streams[0].readexactly(1) == b"x"
            assert await ended(streams)
            assert shown.refusals("expired meanwhile") == 1
            streams[1].close()

    run(loop_factory, scene())


def test_another_authority_ends_what_the_earlier_one_has_let_in(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            streams = await shown.call()
            await until(lambda: shown.behind.open == 1)
            Authority.create(shown.authority.directory, "sysproc", force=True).issue_server(["127.0.0.1"])
            streams[1].write(b"x")
            assert await ended(streams)
            assert shown.refusals("no authority that is trusted now") == 1
            streams[1].close()

    run(loop_factory, scene())


def test_a_renewed_server_certificate_ends_nobody(tmp_path: Path, loop_factory: LoopFactory) -> None:
    async def scene() -> None:
        async with answered(tmp_path) as shown:
            reader, writer = await shown.call()
            await until(lambda: shown.behind.open == 1)
            shown.authority.issue_server(["127.0.0.1"])
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()

    run(loop_factory, scene())
