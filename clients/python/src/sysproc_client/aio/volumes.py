"""Volumes, for asyncio: virtual storage files that belong to containers, or to the host.

    async with AsyncClient() as client:
        data = await client.volumes.create("data", size="1G", owner="web")
        async with data.mount("web", "/srv/data"):
            before = await data.snapshot("before")
        await data.grow("2G")
        await data.delete()

How they are created, found and named is here; what copies them is in `sysproc_client.aio.volume_copies`; a container is
`sysproc_client.aio.container.AsyncContainer`.
"""

import asyncio
import builtins
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc_client._core import volume_requests as requests
from sysproc_client._core.errors import NotFound, SysprocError
from sysproc_client._core.values import size_bytes
from sysproc_client._core.volume_requests import Secret, Wanted
from sysproc_client.aio.connection import Connection
from sysproc_client.aio.container import AsyncContainer
from sysproc_client.aio.made import Made, made_or_undone
from sysproc_client.aio.to_end import to_end
from sysproc_client.aio.uploads import archive_requests, opened, uploaded
from sysproc_client.aio.volume_copies import AsyncCopied, AsyncCopiedVolumes
from sysproc_client.aio.volume_mounts import AsyncMount
from sysproc_client.volume_checks import Checked, checked_one
from sysproc_client.volume_packing import Progress, Source

if TYPE_CHECKING:
    from typing_extensions import Self

Owner = str | AsyncContainer | None


class AsyncVolume(AsyncCopied):
    """One volume, as it was when it was last read. As a context manager it is deleted at the end.

    Besides what is said below, each call raises NotFound, if it is there no more.
    """

    def __init__(self, volumes: "AsyncVolumes", message: pb.Volume) -> None:
        super().__init__(message)
        self._volumes = volumes

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        try:
            await to_end(self.delete())
        except NotFound:
            return  # it is gone already

    async def refresh(self) -> "AsyncVolume":
        """Read it again. Raises NotFound."""
        self.message = await self._volumes._get(self.ref)
        return self

    async def grow(self, size: int | str, *, secret: Secret = None) -> "AsyncVolume":
        """Make it so large, in bytes or as `2G`; its last filesystem takes what is new. Raises FailedPrecondition.

        secret: of an encrypted one.
        """
        self.message = await self._volumes._grow(self.ref, size, secret)
        return self

    async def lock(self, *, force: bool = False) -> None:
        """Lock it, if it is encrypted: afterwards it is mounted nowhere, and its key nowhere in memory.

        force: unmount it everywhere, and end what uses it. Raises FailedPrecondition (where it is mounted; it is not
        encrypted).
        """
        await self._volumes._lock(service.LockVolumeRequest(volume=self.ref, force=bool(force)))

    async def add_key(self, secret: Secret, new: Secret) -> "AsyncVolume":
        """Let another passphrase or key file open it, too, for who knows one.

        Raises InvalidArgument (the new one is empty, or too long), PermissionDenied (a wrong one), FailedPrecondition
        (it is not encrypted), LimitExceeded (there is no room for another).
        """
        return await self._change_keys(service.VOLUME_KEY_CHANGE_ADD, secret, new)

    async def change_key(self, secret: Secret, new: Secret) -> "AsyncVolume":
        """Let another passphrase or key file open it instead of this one; nothing in it is written anew.

        Raises what `add_key` raises: both are there for a moment.
        """
        return await self._change_keys(service.VOLUME_KEY_CHANGE_REPLACE, secret, new)

    async def remove_key(self, secret: Secret, *, slot: int | None = None) -> "AsyncVolume":
        """Let this one open it no more; or the key of this slot, which may be another.

        Raises PermissionDenied (a wrong one), NotFound (the slot), FailedPrecondition (the last one; not encrypted).
        """
        return await self._change_keys(service.VOLUME_KEY_CHANGE_REMOVE, secret, None, slot)

    async def _change_keys(
        self, change: service.VolumeKeyChange.ValueType, secret: Secret, new: Secret = None, slot: int | None = None
    ) -> "AsyncVolume":
        self.message = await self._volumes._change_keys(requests.keys_request(self.ref, change, secret, new, slot))
        return self

    async def shrink(self, size: int | str) -> "AsyncVolume":
        """Make it so small, at the cost of its last filesystem. Raises FailedPrecondition (in use; too full; xfs)."""
        self.message = await self._volumes._shrink(self.ref, size)
        return self

    async def trust(self) -> "AsyncVolume":
        """Vouch, as the host, for what is in it: then the kernel mounts it. Raises FailedPrecondition (in use)."""
        self.message = await self._volumes._trust(self.ref)
        return self

    def mount(
        self,
        container: AsyncContainer | str,
        path: str | bytes,
        *,
        filesystem: str = "",
        read_only: bool = False,
        suid: bool = False,
        noexec: bool = False,
        exclusive: bool = False,
        direct_io: bool = False,
        secret: Secret = None,
    ) -> Made[AsyncMount]:
        """Mount it, or one of its filesystems by the label, in a container that runs.

        What is missing of the path is made. exclusive: nobody else mounts it meanwhile. direct_io: past the host's page
        cache. secret: a passphrase (a text is UTF-8) or what is in a key file, of one that is encrypted and not mounted
        anywhere yet. As a context manager it is unmounted at the end.

        Raises InvalidArgument (the path), NotFound, PermissionDenied (neither its owner nor below), FailedPrecondition.
        """
        request = requests.mount_request(
            self.ref,
            container,
            path,
            filesystem=filesystem,
            read_only=read_only,
            suid=suid,
            noexec=noexec,
            exclusive=exclusive,
            direct_io=direct_io,
            secret=secret,
        )
        return Made(lambda: self._volumes._mount(request))

    def check(self, *, repair: bool = False, secret: Secret = None) -> AsyncIterator[Checked]:
        """Look whether its filesystems are whole, each told of when it is done. Raises FailedPrecondition (in use).

        repair: what is damaged, where that can be done. secret: of an encrypted one.
        """
        return self._volumes._check(self.ref, repair=repair, secret=secret)

    async def attach(self, container: AsyncContainer | str, *, filesystem: str = "", read_only: bool = False) -> str:
        """Give a container that runs this part of it as a raw disk; the device's path there.

        From now on the kernel mounts it no more, before the host vouches for it. Raises FailedPrecondition (in use).
        """
        request = requests.attach_request(self.ref, container, filesystem=filesystem, read_only=read_only)
        attaching = self._volumes._attach(request)
        path = await made_or_undone(attaching, lambda _: self.detach(container, filesystem=filesystem))
        return os.fsdecode(path)

    async def detach(self, container: AsyncContainer | str, *, filesystem: str = "", force: bool = False) -> None:
        """Take the raw disk away again. Raises FailedPrecondition (who has it open); force: those are killed."""
        await self._volumes._detach(requests.detach_request(self.ref, container, filesystem=filesystem, force=force))

    async def delete(self) -> None:
        """Delete it and everything in it. Raises FailedPrecondition (in use)."""
        await self._volumes._delete(self.ref)


class AsyncVolumes(AsyncCopiedVolumes):
    """The volumes of a service."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self,
        name: str,
        *,
        size: int | str | None = None,
        fs: str = "",
        filesystems: Sequence[Wanted] = (),
        compress: str = "",
        owner: Owner = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        encrypt: str = "",
        secret: Secret = None,
        validate_only: bool = False,
        request_id: str | None = None,
    ) -> Made[AsyncVolume]:
        """Make a volume: one filesystem of the type `fs` (ext4, btrfs, xfs), or several. Sizes are bytes or `1G`.

        compress: of one of btrfs, `zstd:3`.
        owner: the container whose it will be. on_destroy: delete or reparent. Safe to repeat with the same request_id.
        encrypt: `fs`, each filesystem by itself, or `whole`, all of its file; secret: its first passphrase or key file.
        validate_only: it is only checked; what would be made comes back.

        Raises InvalidArgument, NotFound (the owner), AlreadyExists (the name), PermissionDenied, FailedPrecondition
        (the owner does not live; a tool is missing there), LimitExceeded (of the owner, one above, or the disk).
        """
        request = requests.create_request(
            name,
            size=size,
            fs=fs,
            filesystems=filesystems,
            compress=compress,
            owner=owner,
            on_destroy=on_destroy,
            overcommit=overcommit,
            encrypt=encrypt,
            secret=secret,
            validate_only=validate_only,
            request_id=request_id,
        )
        return Made(lambda: self._create(request, is_ours=request_id is None))

    async def _create(self, request: service.CreateVolumeRequest, *, is_ours: bool) -> AsyncVolume:
        create = self._connection.stubs.volumes.CreateVolume
        try:
            answer = await self._connection.call(create, request)
        except asyncio.CancelledError:
            if is_ours and not request.validate_only:
                await to_end(undone(self._uncreate(request)))
            raise
        return AsyncVolume(self, answer.volume)

    async def _uncreate(self, request: service.CreateVolumeRequest) -> None:
        """Delete what a create has made, or still makes, whose answer nobody waits for: the request_id finds it."""
        answer = await self._connection.call(self._connection.stubs.volumes.CreateVolume, request)
        await self._delete(AsyncVolume(self, answer.volume).ref)

    async def get(self, name: str, *, owner: Owner = None) -> AsyncVolume:
        """The volume of this name, or `OWNER/NAME`, where the owner is a path of names or an id. Raises NotFound."""
        return AsyncVolume(self, await self._get(requests.volume_ref(name, owner)))

    async def list(self, *, below: Owner = None) -> "builtins.list[AsyncVolume]":
        """All volumes that there are, or those of a container and of all below it, oldest first."""
        return [one async for one in self._list(below)]

    async def _list(self, below: Owner) -> AsyncIterator[AsyncVolume]:
        request = service.ListVolumesRequest(below=requests.owner_ref(below), page_size=requests.PAGE)
        while True:
            page = await self._connection.call(self._connection.stubs.volumes.ListVolumes, request)
            for message in page.volumes:
                yield AsyncVolume(self, message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def create_from(
        self,
        name: str,
        source: Source,
        *,
        fs: str = "erofs",
        compress: str = "",
        label: str = "",
        owner: Owner = None,
        on_destroy: str = "delete",
        overcommit: bool = False,
        progress: Progress = lambda _: None,
    ) -> AsyncVolume:
        """Make a read-only volume of a folder, of a tar file (plain, gzip, xz, zstd), or of an open one.

        fs: erofs or squashfs. compress: `ALGORITHM[:LEVEL]`, as lz4hc:9, zstd:19. Raises SysprocError, OSError.
        """
        header = requests.packing_header(
            name, fs=fs, compress=compress, label=label, owner=owner, on_destroy=on_destroy, overcommit=overcommit
        )
        async with opened(source, "a volume") as (read, header.size_bytes):
            call = self._connection.stubs.volumes.CreateVolumeFrom()
            sent = archive_requests(service.CreateVolumeFromRequest, header, read)
            async with aclosing(uploaded(self._connection, call, sent)) as responses:
                async for response in responses:
                    if response.WhichOneof("update") == "created":
                        return AsyncVolume(self, response.created.volume)
                    progress(response.progress)
        raise ConnectionError("the service ended without a result")

    async def unmount(self, container: AsyncContainer | str, path: str | bytes, *, force: bool = False) -> None:
        """Take the volume at a path out of a container. Raises NotFound, FailedPrecondition (who uses it).

        force: from wherever it is mounted there; processes that hold a file of it are killed.
        """
        await self._unmount(requests.unmount_request(container, path, force=force))

    async def _unmount(self, request: service.UnmountVolumeRequest) -> None:
        await self._connection.call(self._connection.stubs.volumes.UnmountVolume, request)

    async def _mount(self, request: service.MountVolumeRequest) -> AsyncMount:
        async def mount() -> AsyncMount:
            await self._connection.call(self._connection.stubs.volumes.MountVolume, request)
            return AsyncMount(self, request)

        return await made_or_undone(mount(), lambda mounted: mounted.unmount())

    async def _get(self, ref: pb.VolumeRef) -> pb.Volume:
        request = service.GetVolumeRequest(volume=ref)
        return (await self._connection.call(self._connection.stubs.volumes.GetVolume, request)).volume

    async def _lock(self, request: service.LockVolumeRequest) -> None:
        await self._connection.call(self._connection.stubs.volumes.LockVolume, request)

    async def _change_keys(self, request: service.ChangeVolumeKeysRequest) -> pb.Volume:
        return (await self._connection.call(self._connection.stubs.volumes.ChangeVolumeKeys, request)).volume

    async def _grow(self, ref: pb.VolumeRef, size: int | str, secret: Secret) -> pb.Volume:
        request = service.GrowVolumeRequest(
            volume=ref, size_bytes=size_bytes(size), secret=requests.secret_bytes(secret)
        )
        return (await self._connection.call(self._connection.stubs.volumes.GrowVolume, request)).volume

    async def _check(self, ref: pb.VolumeRef, *, repair: bool, secret: Secret) -> AsyncGenerator[Checked, None]:
        request = service.CheckVolumeRequest(volume=ref, repair=bool(repair), secret=requests.secret_bytes(secret))
        call = self._connection.stubs.volumes.CheckVolume(request)
        async with aclosing(self._connection.stream(call)) as responses:
            async for response in responses:
                yield checked_one(response)

    async def _shrink(self, ref: pb.VolumeRef, size: int | str) -> pb.Volume:
        request = service.ShrinkVolumeRequest(volume=ref, size_bytes=size_bytes(size))
        return (await self._connection.call(self._connection.stubs.volumes.ShrinkVolume, request)).volume

    async def _attach(self, request: service.AttachVolumeRequest) -> bytes:
        return (await self._connection.call(self._connection.stubs.volumes.AttachVolume, request)).path

    async def _detach(self, request: service.DetachVolumeRequest) -> None:
        await self._connection.call(self._connection.stubs.volumes.DetachVolume, request)

    async def _trust(self, ref: pb.VolumeRef) -> pb.Volume:
        return (
            await self._connection.call(
                self._connection.stubs.volumes.TrustVolume, service.TrustVolumeRequest(volume=ref)
            )
        ).volume

    async def _delete(self, ref: pb.VolumeRef) -> None:
        request = service.DeleteVolumeRequest(volume=ref, request_id=str(uuid.uuid4()))
        await self._connection.call(self._connection.stubs.volumes.DeleteVolume, request)


async def undone(undo: Coroutine[Any, Any, None]) -> None:
    """Take back what was asked for by who is cancelled, if it was done; nobody is there to be told."""
    try:
        await undo
    except SysprocError:
        return
