"""Work on volumes that goes on until it is told to stop, and what of it was acknowledged at any moment.

One thread makes, grows and deletes volumes; another reads what a writer in a container says, which appends numbered
records to a file of a mounted volume and says a number when fsync has returned. What that has to mean after a power
cut is in test_power_cut.py.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count

from sysproc_client import Client, Process

LOG, PLACE = "log", "/data"
WRITER = f"""
n=0
while n=$((n+1)); do
    echo $n | dd of={PLACE}/{LOG} oflag=append conv=notrunc,fsync 2>/dev/null && echo $n || exit 1
done
"""
MIB = 1 << 20
# Of each: made, grown, and every second one deleted.
SMALL, LARGE = 16 * MIB, 24 * MIB


@dataclass
class Acknowledged:
    """What the service has said.

    sizes: of the volumes that are there; under_way: those that something was asked for and not answered yet; records:
    how many the writer has had synced; steps: how many answers there were.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    under_way: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    records: int = 0
    steps: int = 0


class Load:
    """A context manager: it runs inside."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._so_far, self._lock = endpoint, Acknowledged(), threading.Lock()
        self._end = threading.Event()
        self.failed: list[BaseException] = []

    def __enter__(self) -> "Load":
        with Client(self._endpoint) as client:
            box = client.create(name="writer")
            volume = client.volumes.create("log", size="64M")
            volume.mount(box, PLACE)
        works: tuple[Callable[[], None], ...] = (self._change_volumes, lambda: self._follow(box.id))
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

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as failure:
            self.failed.append(failure)

    def _follow(self, box_id: str) -> None:
        with Client(self._endpoint) as client, client.at(box_id).exec(["sh", "-c", WRITER], stdin=False) as process:
            for number in numbers(process):
                with self._lock:
                    self._so_far.records = number
                if self._end.is_set():
                    return

    def _change_volumes(self) -> None:
        with Client(self._endpoint) as client:
            for number in count():
                if self._end.is_set():
                    return
                self._one_life(client, f"v{number}", deleted=number % 2 == 0)

    def _one_life(self, client: Client, name: str, *, deleted: bool) -> None:
        with self._asked(name, SMALL):
            volume = client.volumes.create(name, size=SMALL)
        with self._asked(name, LARGE):
            volume.grow(LARGE)
        if deleted:
            with self._asked(name, None):
                volume.delete()

    @contextmanager
    def _asked(self, name: str, becomes: int | None) -> Iterator[None]:
        """Something is asked for meanwhile, and answered at the end: it has this size then, or is gone (None)."""
        with self._lock:
            self._so_far.under_way.add(name)
        yield
        with self._lock:
            self._so_far.under_way.discard(name)
            self._so_far.steps += 1
            if becomes is not None:
                self._so_far.sizes[name] = becomes
            else:
                self._so_far.sizes.pop(name)
                self._so_far.deleted.add(name)


def numbers(process: Process) -> Iterator[int]:
    """What the writer says, one number a line."""
    rest = b""
    for chunk in process:
        *lines, rest = (rest + chunk.data).split(b"\n")
        yield from (int(line) for line in lines)
