"""A link to a service that is slow, or says nothing for a while: a relay between two sockets of the Unix domain.

What a client makes of it is in `tests.e2e.test_slow_link`.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# So much may be under way in each direction: the buffers of the two sockets.
BUFFER_BYTES = 64 << 10
PIECE_BYTES = 8 << 10


class SlowLink:
    """Listens at `path`, and carries what comes to the service and back, `bytes_s` a second each way."""

    def __init__(self, path: Path, service: Path, bytes_s: float) -> None:
        self.path, self._service, self._bytes_s = path, service, bytes_s
        self.endpoint = f"unix://{path}"
        self.carried = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._start(self._accept)

    def stall(self) -> None:
        """Nothing comes through until it flows again; nobody is told."""
        self._flowing.clear()

    def flow(self) -> None:
        """Carry what has waited, and what comes."""
        self._flowing.set()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # shut down
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._service))
            for sock in (near, far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            self._sockets += [near, far]
            self._start(self._carry, near, far)
            self._start(self._carry, far, near)

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one side has gone
            while piece := source.recv(PIECE_BYTES):
                time.sleep(len(piece) / self._bytes_s)
                self._flowing.wait()
                target.sendall(piece)
                self.carried += len(piece)
        for sock in (source, target):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut all that is connected."""
        self._flowing.set()
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()
        self.path.unlink()


@contextmanager
def slow_link(path: Path, service: Path, bytes_s: float) -> Iterator[SlowLink]:
    """One, until the end of the block."""
    link = SlowLink(path, service, bytes_s)
    try:
        yield link
    finally:
        link.close()
