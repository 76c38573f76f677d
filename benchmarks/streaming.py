"""Output and input of an exec through both shells of the client, sync and async, in turn.

The same process, the same service, the same machine: what differs is the shell. How times are taken is in
`benchmarks.measure`.
"""

import asyncio
from collections.abc import Sequence

from benchmarks.measure import Timing, interleaved
from sysproc_client import Client
from sysproc_client.aio import AsyncClient

MIB = 64
PIECE = bytes(2**20)
OUTPUT = ["dd", "if=/dev/zero", "bs=64k", f"count={MIB * 16}"]
INPUT = ["dd", "of=/dev/null", "bs=64k"]


def streaming(client: Client, runs: int) -> Sequence[Timing]:
    """So many MiB out, then as many in."""
    # One loop for all: what gRPC still has to say of the last call would disturb another one.
    with client.create() as box, asyncio.Runner() as loop:
        where = client.endpoint, box.id
        return interleaved(
            {
                "output, sync": lambda: output(*where),
                "output, async": lambda: loop.run(output_async(*where)),
                "input, sync": lambda: given(*where),
                "input, async": lambda: loop.run(given_async(*where)),
            },
            runs,
        )


def output(endpoint: str, box: str) -> None:
    """Read all of it."""
    with Client(endpoint) as client:
        check(sum(map(len, client.at(box).exec(OUTPUT).stdout)))


async def output_async(endpoint: str, box: str) -> None:
    """Read all of it."""
    async with AsyncClient(endpoint) as client, client.at(box).exec(OUTPUT) as process:
        check(sum([len(data) async for data in process.stdout]))


def given(endpoint: str, box: str) -> None:
    """Write all of it."""
    with Client(endpoint) as client, client.at(box).exec(INPUT) as process:
        for _ in range(MIB):
            process.stdin.write(PIECE)
        process.stdin.close()
        check(MIB * len(PIECE) if process.wait().exit_code == 0 else 0)


async def given_async(endpoint: str, box: str) -> None:
    """Write all of it."""
    async with AsyncClient(endpoint) as client, client.at(box).exec(INPUT) as process:
        for _ in range(MIB):
            await process.stdin.write(PIECE)
        await process.stdin.close()
        check(MIB * len(PIECE) if (await process.wait()).exit_code == 0 else 0)


def check(done: int) -> None:
    """A time counts only if everything has arrived."""
    if done != MIB * len(PIECE):
        raise RuntimeError(f"{done} bytes have arrived of {MIB} MiB")
