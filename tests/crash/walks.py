"""Walks through the verbs, one for each kind of thing: what is done while something fails.

Each stands alone, with containers and volumes of its own, and may be cut at any place. A new verb goes into the walk of
its kind, or gets one of its own in `WALKS`; the whole of them has to meet every failpoint.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

from sysproc_client import Client, SysprocError

# Id and state of containers, as the service has said last.
Acknowledged = dict[str, str]
Walk = Callable[[Client, Acknowledged], None]

# A root of a size that none had before is grown, and its template kept; a filesystem of such a size is made.
SIZES = count(1100)


@contextmanager
def whatever_fails() -> Iterator[None]:
    """The service may die or refuse here; what it has acknowledged counts, the rest does not."""
    with suppress(SysprocError, OSError, ConnectionError):
        yield


def small_tar() -> io.BytesIO:
    """An image that is quickly unpacked."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    made.seek(0)
    return made


def images(client: Client, _: Acknowledged) -> None:
    """Imported and deleted."""
    with whatever_fails():
        client.images.import_("small", small_tar())
    client.images.delete("small")


def processes(client: Client, acknowledged: Acknowledged) -> None:
    """One that runs to its end."""
    top = client.create(name="top")
    acknowledged[top.id] = "running"
    top.run(["true"], timeout=20)


def containers(client: Client, acknowledged: Acknowledged) -> None:
    """Two levels; each verb."""
    top = client.create(name="top")
    acknowledged[top.id] = "running"
    child = client.create(parent=top, size=f"{next(SIZES)}M")
    acknowledged[child.id] = "running"
    with whatever_fails():
        top.update(pids=64)
    for verb, state in (("freeze", "frozen"), ("thaw", "running"), ("stop", "stopped"), ("start", "running")):
        acknowledged.pop(child.id, None)
        child.stop(grace=0) if verb == "stop" else getattr(child, verb)()
        acknowledged[child.id] = state
    doomed = client.create(parent=top)
    acknowledged.pop(child.id, None)
    child.destroy()
    doomed.destroy()


def volumes(client: Client, _: Acknowledged) -> None:
    """The host's: created, grown, deleted."""
    volume = client.volumes.create("data", size=f"{next(SIZES)}M")
    with whatever_fails():
        volume.grow(f"{next(SIZES)}M")
    volume.delete()


def encrypted(client: Client, _: Acknowledged) -> None:
    """Encrypted volumes: each verb that needs a secret, and the lock."""
    owner = client.create(name="owner")
    for encrypt in ("fs", "whole"):
        volume = client.volumes.create(encrypt, size="32M", owner=owner, encrypt=encrypt, secret="one")
        with whatever_fails():
            volume.grow("48M", secret="one")
        with whatever_fails():
            volume.mount(owner, "/data", secret="one")
            volume.lock(force=True)
        with whatever_fails():
            volume.change_key("one", "two")
            volume.remove_key("two")
    owner.destroy()


def carried(client: Client, _: Acknowledged) -> None:
    """An encrypted volume to a file and back, and opened."""
    owner, image = client.create(name="carried"), io.BytesIO()
    client.volumes.create("sent", size="32M", owner=owner, encrypt="whole", secret="one").export_to(image)
    image.seek(0)
    with whatever_fails():
        client.volumes.import_from("got", image, owner=owner, trusted=True).mount(owner, "/data", secret="one")
    owner.destroy()


def resizing(client: Client, _: Acknowledged) -> None:
    """One that is grown while it is mounted, and shrunk afterwards."""
    owner = client.create(name="resizing")
    volume = client.volumes.create("btrfs", size="128M", fs="btrfs", owner=owner)
    with whatever_fails():
        volume.mount(owner, "/data")
        volume.grow("512M")
        client.volumes.unmount(owner, "/data")
    with whatever_fails():
        volume.shrink("300M")
    owner.destroy()


def widening(client: Client, _: Acknowledged) -> None:
    """Encrypted ones that are grown while they are mounted."""
    owner = client.create(name="widening")
    for encrypt in ("fs", "whole"):
        volume = client.volumes.create(encrypt, size="160M", fs="btrfs", owner=owner, encrypt=encrypt, secret="one")
        with whatever_fails():
            volume.mount(owner, "/data", secret="one")
            volume.grow("512M", secret="one")
            volume.lock(force=True)
    owner.destroy()


def raw_disks(client: Client, _: Acknowledged) -> None:
    """One that is taken away again, and one that goes with its container."""
    owner = client.create(name="raw")
    volume = client.volumes.create("raw", size="16M", owner=owner)
    with whatever_fails():
        volume.attach(owner)
        volume.detach(owner, force=True)
    with whatever_fails():
        volume.attach(owner)
    owner.destroy()


def mounts(client: Client, _: Acknowledged) -> None:
    """Volumes of a container that goes, mounted in it."""
    owner = client.create(name="owner")
    for policy in ("delete", "reparent"):
        volume = client.volumes.create(policy, size="16M", owner=owner, on_destroy=policy)
        with whatever_fails():
            volume.mount(owner, "/data")
            client.volumes.unmount(owner, "/data")
            volume.mount(owner, "/data")
    owner.destroy()


def packed(client: Client, _: Acknowledged) -> None:
    """A read-only volume, looked at."""
    with whatever_fails():
        list(client.volumes.create_from("tools", small_tar()).check())
    client.volumes.get("tools").delete()


def copies(client: Client, _: Acknowledged) -> None:
    """Clone and snapshot of a volume that is mounted."""
    owner = client.create(name="copied")
    volume = client.volumes.create("original", size="16M", owner=owner)
    volume.mount(owner, "/data")
    for copy in ("clone", "snapshot"):
        with whatever_fails():
            getattr(volume, copy)(copy).delete()
    volume.snapshot("kept")
    owner.destroy()


def transfers(client: Client, _: Acknowledged) -> None:
    """A volume to a file, and back: trusted, and copied into a filesystem of ours."""
    image = io.BytesIO()
    client.volumes.create("sent", size="16M").export_to(image)
    for trusted in (True, False):
        image.seek(0)
        with whatever_fails():
            client.volumes.import_from(f"trusted-{trusted}".lower(), image, trusted=trusted)


# The plainest come first: a failpoint is met in those two of them that come to it before the others.
_PLAIN = (images, processes, containers, volumes, packed, mounts, raw_disks, copies)
_LONGER = (encrypted, resizing, widening, carried, transfers)
WALKS: dict[str, Walk] = {walk.__name__: walk for walk in (*_PLAIN, *_LONGER)}


def walk(endpoint: str, acknowledged: Acknowledged, names: list[str]) -> None:
    """These, one after the other, whatever fails."""
    with Client(endpoint, patience=0) as client:
        for name in names:
            with whatever_fails():
                WALKS[name](client, acknowledged)
