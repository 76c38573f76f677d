"""The channels to one service, for asyncio: as many as its streams need, made with the first call in its loop.

Why there are several is said in `sysproc_client.channels`, how they are set in
`sysproc_client._core.channel_options`.
"""

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING

import grpc

from nightos.sysproc.v1.container_service_pb2_grpc import ContainerServiceStub
from nightos.sysproc.v1.image_service_pb2_grpc import ImageServiceStub
from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceStub
from nightos.sysproc.v1.system_service_pb2_grpc import SystemServiceStub
from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceStub
from sysproc_client._core.channel_options import Room, options_for, target_of
from sysproc_client.tls import Tls

if TYPE_CHECKING:
    from nightos.sysproc.v1.container_service_pb2_grpc import ContainerServiceAsyncStub
    from nightos.sysproc.v1.image_service_pb2_grpc import ImageServiceAsyncStub
    from nightos.sysproc.v1.process_service_pb2_grpc import ProcessServiceAsyncStub
    from nightos.sysproc.v1.system_service_pb2_grpc import SystemServiceAsyncStub
    from nightos.sysproc.v1.volume_service_pb2_grpc import VolumeServiceAsyncStub


class Stubs:
    """What can be called over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.containers: ContainerServiceAsyncStub = ContainerServiceStub(channel)
        self.processes: ProcessServiceAsyncStub = ProcessServiceStub(channel)
        self.images: ImageServiceAsyncStub = ImageServiceStub(channel)
        self.volumes: VolumeServiceAsyncStub = VolumeServiceStub(channel)
        self.system: SystemServiceAsyncStub = SystemServiceStub(channel)


class Place:
    """Room for one stream on a channel, until it is left."""

    def __init__(self, room: Room[grpc.aio.Channel], channel: grpc.aio.Channel) -> None:
        self.processes: ProcessServiceAsyncStub = ProcessServiceStub(channel)
        self._room, self._channel = room, channel

    def leave(self) -> None:
        """The stream has ended; call it once."""
        self._room.give_back(self._channel)


class Channels:
    """All channels to one endpoint. tls: for an endpoint of TCP, which there is not without."""

    def __init__(self, endpoint: str, tls: Tls | None) -> None:
        self._endpoint, self._tls = endpoint, tls
        self._room: Room[grpc.aio.Channel] = Room()
        self._credentials = None if tls is None else tls.credentials()

    @cached_property
    def stubs(self) -> Stubs:
        """What is short goes over the first channel."""
        first = self._another()
        self._room.streams.setdefault(first, 0)
        return Stubs(first)

    def _another(self) -> grpc.aio.Channel:
        asyncio.get_running_loop()  # gRPC would take one that may never run
        target, options = target_of(self._endpoint), options_for(self._endpoint)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target, options=options)
        return grpc.aio.secure_channel(target, self._credentials, options=options)

    def place(self) -> Place:
        """Room for a stream; leave it when the stream has ended."""
        return Place(self._room, self._room.take(self._another))

    async def close(self) -> None:
        """Close them all; another call makes them anew."""
        self.__dict__.pop("stubs", None)
        while self._room.streams:
            channel, _ = self._room.streams.popitem()
            await channel.close()
