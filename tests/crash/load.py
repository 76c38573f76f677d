"""Work on volumes that goes on until it is told to stop, and what of it was acknowledged at any moment.

    a thread each
      lives     makes, grows, clones and deletes small volumes that nobody uses
      copies    clones and snapshots of the volumes that are written to meanwhile
      growth    grows those of them that this kernel grows while they are mounted
      writers   one in each of WRITTEN: appends numbered records to a file, and says a number when fsync has returned

What that has to mean after a power cut is in test_power_cut.py.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sysproc.linux.capabilities import CAP_SYS_RESOURCE, is_capable
from sysproc_client import Client, Process, Volume

LOG = "log"
WRITER = """
n=0
while n=$((n+1)); do
    echo $n | dd of={file} oflag=append conv=notrunc,fsync 2>/dev/null && echo $n || exit 1
done
"""
MIB = 1 << 20
SMALL, LARGE = 16 * MIB, 24 * MIB
# Each grows by so much, once in so many seconds.
STEP, GROWTH_PAUSE_S = 16 * MIB, 0.2
# So many lives later a small volume that was kept at first is deleted; of copies there are as many.
KEPT, COPIES_PAUSE_S = 6, 0.1
# Larger than any.
ANY_SIZE = 1 << 50
SECRET = "a passphrase"


@dataclass(frozen=True)
class Written:
    """A volume that is written to."""

    name: str
    wanted: dict[str, Any]
    grows: bool = False

    @property
    def secret(self) -> str | None:
        """What opens it."""
        return self.wanted.get("secret")


def written() -> tuple[Written, ...]:
    """Those that can be made here. ext4 is grown in use only by who has CAP_SYS_RESOURCE."""
    found = [
        Written("plain", {"size": 64 * MIB}, grows=is_capable(CAP_SYS_RESOURCE)),
        Written("sealed", {"size": 64 * MIB, "encrypt": "fs", "secret": SECRET}),
    ]
    if shutil.which("mkfs.btrfs") and "btrfs" in Path("/proc/filesystems").read_text():
        found.append(Written("wide", {"size": 256 * MIB, "fs": "btrfs"}, grows=True))
    return tuple(found)


@dataclass
class Acknowledged:
    """What the service has said.

    sizes: of the volumes that are there; under_way: what those will have for which something was asked and not answered
    yet; records: how many each writer has had synced; least: of a copy, of which volume, and how many of its records it
    has at least; steps: how many answers there were.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    under_way: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    least: dict[str, tuple[str, int]] = field(default_factory=dict)
    steps: int = 0


class Load:
    """A context manager: it runs inside."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._so_far, self._lock = endpoint, Acknowledged(), threading.Lock()
        self._end = threading.Event()
        self.written = written()
        self.failed: list[BaseException] = []

    def __enter__(self) -> "Load":
        with Client(self._endpoint) as client:
            box = client.create(name="writer")
            for one in self.written:
                volume = client.volumes.create(one.name, overcommit=True, **one.wanted)
                volume.mount(box, place(one.name), secret=one.secret)
                self._so_far.sizes[one.name], self._so_far.records[one.name] = volume.size, 0
        works: list[Callable[[Client], None]] = [self._lives, self._copies, self._growth]
        works += [self._follower(box.id, one.name) for one in self.written]
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def acknowledged(self) -> Acknowledged:
        """So far: all of it has happened before this returns."""
        with self._lock:
            return deepcopy(self._so_far)

    def _guarded(self, work: Callable[[Client], None]) -> None:
        try:
            with Client(self._endpoint) as client:
                work(client)
        except BaseException as failure:
            self.failed.append(failure)

    def _follower(self, box_id: str, name: str) -> Callable[[Client], None]:
        def follow(client: Client) -> None:
            script = WRITER.format(file=f"{place(name)}/{LOG}")
            with client.at(box_id).exec(["sh", "-c", script], stdin=False) as process:
                for number in numbers(process):
                    with self._lock:
                        self._so_far.records[name] = number
                    if self._end.is_set():
                        return

        return follow

    def _lives(self, client: Client) -> None:
        for number in count():
            if self._end.is_set():
                return
            self._one_life(client, number)

    def _one_life(self, client: Client, number: int) -> None:
        name = f"v{number}"
        self._asked(name, SMALL, lambda: client.volumes.create(name, size=SMALL))
        self._asked(name, LARGE, client.volumes.get(name).grow, LARGE)
        self._asked(f"c{number}", LARGE, client.volumes.get(name).clone, f"c{number}")
        if number % 2 == 0:
            self._delete(client, name)
        for old in (f"v{number - KEPT}", f"c{number - KEPT}"):
            if old in self.acknowledged().sizes:
                self._delete(client, old)

    def _copies(self, client: Client) -> None:
        for number in count():
            if self._end.wait(COPIES_PAUSE_S):
                return
            # By turns, and each of them both ways.
            source = self.written[number % len(self.written)].name
            self._copy(client.volumes.get(source), f"s{number}", snapshot=number // len(self.written) % 2 == 0)
            if number >= KEPT:
                self._delete(client, f"s{number - KEPT}")

    def _copy(self, source: Volume, name: str, *, snapshot: bool) -> None:
        with self._lock:
            self._so_far.least[name] = source.name, self._so_far.records[source.name]
        copy = source.snapshot if snapshot else source.clone
        self._asked(name, ANY_SIZE, lambda: copy(name, overcommit=True))

    def _growth(self, client: Client) -> None:
        while not self._end.wait(GROWTH_PAUSE_S):
            for name in (one.name for one in self.written if one.grows):
                size = self.acknowledged().sizes[name] + STEP
                self._asked(name, size, client.volumes.get(name).grow, size)

    def _asked(self, name: str, becomes: int, ask: Callable[..., Volume], *arguments: Any) -> None:
        """Something is asked for, and answered."""
        with self._lock:
            self._so_far.under_way[name] = becomes
        size = ask(*arguments).size
        with self._lock:
            del self._so_far.under_way[name]
            self._so_far.sizes[name] = size
            self._so_far.steps += 1

    def _delete(self, client: Client, name: str) -> None:
        with self._lock:
            self._so_far.under_way[name] = self._so_far.sizes[name]
        client.volumes.get(name).delete()
        with self._lock:
            del self._so_far.under_way[name]
            self._so_far.deleted[name] = self._so_far.sizes.pop(name)
            self._so_far.steps += 1


def place(name: str) -> str:
    """Where a volume is mounted."""
    return f"/data/{name}"


def numbers(process: Process) -> Iterator[int]:
    """What the writer says, one number a line."""
    rest = b""
    for chunk in process:
        *lines, rest = (rest + chunk.data).split(b"\n")
        yield from (int(line) for line in lines)
