"""A program of a user, with nothing but what the client's distribution brings: `python using_the_client.py ENDPOINT`.

It is run on every Python that the client supports, and checked by mypy as a user would.
"""

import asyncio
import atexit
import sys
from datetime import datetime

from sysproc_client import Client, Container, NotFound, Result, TimedOut
from sysproc_client.aio import AsyncClient, AsyncContainer


def refused(client: Client) -> str:
    """Why something that is not there is not found, and what to do."""
    try:
        client.get("nowhere")
    except NotFound as error:
        return f"{error.reason}: {error.resolution}"
    raise AssertionError("it was found")


def threads(endpoint: str) -> None:
    """With the sync shell."""
    with Client(endpoint, timeout=60) as client:
        with client.create(image="busybox", memory="64M", labels={"used": "yes"}) as box:
            made: Container = box
            created: datetime = made.created
            result: Result = box.run(["cat"], input=b"hello")
            with box.exec(["sh", "-c", "echo out; cat"]) as process:
                process.stdin.write(b"in\n")
                process.stdin.close()
                output: bytes = b"".join(process.stdout)
            code: int | None = process.wait().exit_code
            print(created.tzinfo, result.stdout, output, code, [one.state for one in box.tree()])
        print(bool(refused(client)), client.list())


async def loop(endpoint: str) -> None:
    """With the async one."""
    async with AsyncClient(endpoint, timeout=60) as client, client.create(image="busybox", memory="64M") as box:
        made: AsyncContainer = box
        result: Result = await made.run(["cat"], input=b"hello")
        async with box.exec(["sh", "-c", "echo out; cat"]) as process:
            await process.stdin.write(b"in\n")
            await process.stdin.close()
            output: bytes = b"".join([data async for data in process.stdout])
        code: int | None = (await process.wait()).exit_code
        print(result.stdout, output, code, [one.state for one in await box.tree()])
        try:
            await asyncio.wait_for(box.run(["sleep", "1000"]), 0.5)
        except asyncio.TimeoutError:
            print("cancelled", [one.argv for one in await box.ps()])
        try:
            await box.run(["sleep", "1000"], timeout=0.2)
        except TimedOut as error:
            print(error.reason)


def closed_at_exit(endpoint: str) -> None:
    """As programs do that keep one client."""
    client = Client(endpoint)
    atexit.register(client.close)
    client.whoami()


if __name__ == "__main__":
    closed_at_exit(sys.argv[1])
    threads(sys.argv[1])
    asyncio.run(loop(sys.argv[1]))
