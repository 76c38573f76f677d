"""The asynchronous Python client of sysproc: `AsyncClient`, its containers, their processes, images and volumes.

    async with AsyncClient() as client:
        async with client.create(image="busybox", memory="64M") as box:
            async with box.exec(["cat"]) as process:
                await process.stdin.write(b"hello")
                await process.stdin.close()
                async for data in process.stdout:
                    print(data)

The shape is that of `sysproc_client.Client`, and so are the errors, which are in `sysproc_client`. A client belongs to
the loop in which it makes its first call.
"""

from sysproc_client.aio.client import AsyncClient
from sysproc_client.aio.container import AsyncContainer
from sysproc_client.aio.process import AsyncProcess
from sysproc_client.aio.volume_mounts import AsyncMount
from sysproc_client.aio.volumes import AsyncVolume

__all__ = ["AsyncClient", "AsyncContainer", "AsyncMount", "AsyncProcess", "AsyncVolume"]
