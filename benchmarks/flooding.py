"""A process of a container that floods the container's own socket: `python -m benchmarks.flooding INIT_PID`.

It opens as many connections as it gets, and on each begins calls of WhoAmI and resets them, as quickly as it can
write, until it is killed; bytes only, no gRPC. How it comes to be of the container is in `tests.e2e.calling_inside`.
"""

import selectors
import socket
import sys

from tests.e2e.calling_inside import enter

PATH = "/run/sysproc/sysproc.sock"
CONNECTIONS = 64
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
HEADERS, RESET, DATA = 1, 3, 0
END_STREAM, END_HEADERS = 1, 4
CANCEL = b"\0\0\0\x08"


def literal(name: str, value: str) -> bytes:
    """A header of HPACK, never indexed, without Huffman (RFC 7541, 6.2.3)."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


CALL = b"".join(
    literal(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/nightos.sysproc.v1.SystemService/WhoAmI"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def calls(first: int, count: int) -> bytes:
    """Calls on streams from this one on: half of them whole, half reset at once."""
    parts = []
    for stream in range(first, first + 2 * count, 2):
        parts.append(frame(HEADERS, END_HEADERS, stream, CALL))
        if stream % 4 == 1:
            parts.append(frame(DATA, END_STREAM, stream, b"\0\0\0\0\0"))
        else:
            parts.append(frame(RESET, 0, stream, CANCEL))
    return b"".join(parts)


class Flood:
    """One connection: writes whenever it can, throws away what comes."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(PATH)
        self.sock.setblocking(False)
        self._stream, self._unsent = 1, PREFACE

    def go_on(self) -> None:
        """Read what is there, write what goes. OSError: the connection was ended."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        if not self._unsent:
            self._unsent, self._stream = calls(self._stream, 100), self._stream + 200
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return


def main() -> None:
    """See the module's docstring."""
    enter(int(sys.argv[1]), int(sys.argv[2]))
    selector = selectors.DefaultSelector()
    print("flooding", flush=True)
    while True:
        while len(selector.get_map()) < CONNECTIONS:
            flood = Flood()
            selector.register(flood.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, flood)
        for key, _ in selector.select():
            try:
                key.data.go_on()
            except OSError:
                selector.unregister(key.fileobj)
                key.data.sock.close()


if __name__ == "__main__":
    main()
