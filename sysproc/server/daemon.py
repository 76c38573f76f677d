"""The daemon's life: what is done in which order from its start to its end.

    start   build ▸ grpcio on its private socket ▸ recovery ▸ listen ▸ accept ▸ SERVING, READY=1
    SIGTERM STOPPING=1, NOT_SERVING ▸ accept no more ▸ watches end (UNAVAILABLE) ▸ other calls have their grace
            ▸ verbs under way are waited for ▸ connections, database, claims are let go
            no container runs ▸ the launcher ends too, its cgroups are removed
    kill -9 the next start finds what is left (`sysproc.recovery`)

Containers and their processes live on in each case, and with them the launcher. What it is made of is in
`sysproc.server.wiring`.
"""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import structlog

from sysproc.errors import FailedPrecondition, SysprocError
from sysproc.recovery import Recovery
from sysproc.server import wiring
from sysproc.server.notify import Notifier
from sysproc.server.settings import Settings
from sysproc.server.wiring import Parts
from sysproc.to_end import to_end

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MESSAGE_BYTES = 4 * 2**20
METADATA_BYTES = 16 * 2**10


async def run(settings: Settings, notifier: Notifier) -> None:
    """Serve until a signal; raises SysprocError if that cannot be begun."""
    if os.geteuid() != 0:
        raise FailedPrecondition(
            "sysprocd makes namespaces, mounts and cgroups of the host: it has to be root.",
            resolution="Start it as root.",
            reason="NOT_ROOT",
        )
    os.umask(0o077)
    raise_fd_limit()
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        parts = await wiring.build(settings, stack)
        await stack.enter_async_context(serving(parts, settings))
        running, root = len(parts.containers.life.held), parts.host.cgroups.root
        log.info("ready", endpoints=list(map(str, settings.endpoints)), running=running, cgroups=root)
        notifier.ready("serving")
        await stop.wait()
        notifier.stopping("waiting for calls to end")
        await drain(parts, settings.shutdown_grace_s)
    log.info("stopped")


@asynccontextmanager
async def serving(parts: Parts, settings: Settings) -> AsyncIterator[None]:
    """Answer calls inside; the sockets that others connect to are opened last and closed first."""
    server = grpc.aio.server(handlers=(parts.interceptor,), options=options(settings))
    server.add_insecure_port(f"unix:{parts.private_socket}")
    await server.start()
    try:
        await parts.host.images.recover()
        await parts.copies.recover()
        await Recovery(parts.host, parts.containers).run()
        await parts.volumes.recover()
        await parts.volume_watch.recover()
        await wiring.ensure_default_image(settings, parts.host.images)
        wiring.answer_on(parts, await parts.listeners.open())
        parts.host.launcher.on_lost = lambda: leave_listeners(parts)
        gc.freeze()
        await parts.health.set(serving=True)
        parts.relay.accept()
        async with ended_at_exit(parts.lifetimes.run()), ended_at_exit(parts.disk_watch.run()):
            yield
    finally:
        await parts.tasks.wait()
        await server.stop(None)
        await parts.relay.close()
        await end_if_idle(parts)
        parts.processes.close()
        parts.volume_watch.close()
        parts.containers.life.held.close()


@asynccontextmanager
async def ended_at_exit(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Let something run beside the block, and end it with the block."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def end_if_idle(parts: Parts) -> None:
    """Where no container runs, nothing has to outlive this daemon: the launcher ends, the cgroups go."""
    if len(parts.containers.life.held) > 0:
        return
    parts.host.launcher.on_lost = lambda: None
    try:
        await parts.host.launcher.quit()
        await to_end(parts.host.cgroups.remove_when_empty)
    except (OSError, SysprocError) as why:
        log.warning("launcher or cgroups are left", error=str(why))


def leave_listeners(parts: Parts) -> None:
    """The launcher has died: start another at once, which is given the listening sockets."""
    log.warning("launcher lost: starting another")
    parts.tasks.start(parts.listeners.deposit())


async def drain(parts: Parts, grace_s: float) -> None:
    """Take no new calls, end those that would not end, give the others their grace."""
    await parts.health.set(serving=False)
    parts.relay.stop_accepting()
    parts.interceptor.stop()
    if not await parts.interceptor.idle(grace_s):
        parts.interceptor.stop(all_calls=True)
    log.info("calls", ended={f"{method} {code}": count for (method, code), count in parts.interceptor.counts.items()})


def options(settings: Settings) -> list[tuple[str, int]]:
    """Bounds of grpcio: what one connection and one message may have."""
    return [
        ("grpc.max_concurrent_streams", settings.streams_per_connection),
        # Clients look every 20 s whether a silent service is still there; unless told, grpcio hangs up on them.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.so_reuseport", 0),
    ]


def raise_fd_limit() -> None:
    """Each container costs a few fds, each connection two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
