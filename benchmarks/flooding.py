"""A process of a container that floods the container's own socket: `python -m benchmarks.flooding INIT_PID UID KIND`.

It opens as many connections as it gets and writes as quickly as it can until it is killed; bytes only, no gRPC. KIND:

    calls     WhoAmI, every second one reset at once
    pulses    the same, a thousand at a time with two silent seconds between
    control   pings, settings, window updates, DATA without data
    messages  thousands of empty messages in each frame of a stream (of Exec, which has to start a process first)
    input     large messages to the stdin of a process: the bytes that may be honest

How it comes to be of the container is in `tests.e2e.calling_inside`.
"""

import selectors
import socket
import sys
import time
from collections.abc import Callable

from nightos.sysproc.v1.process_service_pb2 import ExecRequest
from nightos.sysproc.v1.ref_pb2 import ContainerRef
from tests.e2e.calling_inside import enter

PATH = "/run/sysproc/sysproc.sock"
CONNECTIONS = 64
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
WINDOW, INITIAL_WINDOW_SIZE = 65535, b"\0\4"
CANCEL = b"\0\0\0\x08"
SILENCE_S = 2.0


def literal(name: str, value: str) -> bytes:
    """A header of HPACK, never indexed, without Huffman (RFC 7541, 6.2.3)."""
    return b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def headers(method: str) -> bytes:
    """The headers of a call."""
    values = {":method": "POST", ":scheme": "http", ":path": f"/nightos.sysproc.v1.{method}", ":authority": "localhost"}
    values |= {"te": "trailers", "content-type": "application/grpc"}
    return b"".join(literal(name, value) for name, value in values.items())


CALL, EXEC = headers("SystemService/WhoAmI"), headers("ProcessService/Exec")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def message(request: bytes) -> bytes:
    """A message of gRPC."""
    return b"\0" + len(request).to_bytes(4, "big") + request


def calls(first: int, count: int) -> bytes:
    """Calls on streams from this one on: half of them whole, half reset at once."""
    parts = []
    for stream in range(first, first + 2 * count, 2):
        parts.append(frame(HEADERS, END_HEADERS, stream, CALL))
        if stream % 4 == 1:
            parts.append(frame(DATA, END_STREAM, stream, message(b"")))
        else:
            parts.append(frame(RESET, 0, stream, CANCEL))
    return b"".join(parts)


class Flood:
    """One connection: writes whenever it can, and keeps to the windows that the service gives."""

    def __init__(self, kind: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(PATH)
        self.sock.setblocking(False)
        self._more, self._unsent, self._unread = KINDS[kind], PREFACE, b""
        self._stream, self._offset, self._pulse = 1, 0, 0
        # Of the connection, and of its only stream of Exec; and with how much a stream begins.
        self._windows, self._initial = [WINDOW, WINDOW], WINDOW

    def go_on(self) -> None:
        """Read what is there, write what goes. OSError: the connection was ended."""
        self._read()
        if not self._unsent:
            self._unsent = self._more(self)
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            return

    def _read(self) -> None:
        try:
            while data := self.sock.recv(1 << 16):
                self._unread += data
            raise ConnectionResetError
        except BlockingIOError:
            pass
        at = 0
        while len(self._unread) >= (end := at + 9 + int.from_bytes(self._unread[at : at + 3], "big")):
            stream = int.from_bytes(self._unread[at + 5 : at + 9], "big")
            self._seen(self._unread[at + 3], self._unread[at + 4], stream, self._unread[at + 9 : end])
            at = end
        self._unread = self._unread[at:]

    def _seen(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream < len(self._windows):
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            self._unsent += frame(SETTINGS, ACK, 0, b"")  # the windows hold from then on
            for at in range(0, len(payload), 6):
                if payload[at : at + 2] == INITIAL_WINDOW_SIZE:
                    before, self._initial = self._initial, int.from_bytes(payload[at + 2 : at + 6], "big")
                    self._windows[1] += self._initial - before

    def calls(self) -> bytes:
        """The next calls."""
        first, self._stream = self._stream, self._stream + 200
        return calls(first, 100)

    def pulse(self) -> bytes:
        """Some calls on each connection at the same time, then none for a while."""
        pulse = int(time.monotonic() / SILENCE_S)
        if pulse == self._pulse:
            time.sleep(0.0005)
            return b""
        first, self._stream, self._pulse = self._stream, self._stream + 32, pulse
        return calls(first, 16)

    def control(self) -> bytes:
        """Frames that carry nothing."""
        nothing = frame(PING, 0, 0, bytes(8)) + frame(SETTINGS, 0, 0, b"")
        return (nothing + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") + frame(DATA, 0, 1, b"")) * 250

    def messages(self) -> bytes:
        """The next piece of a stream of empty messages."""
        return self._of_exec(3000 * message(b""))

    def input(self) -> bytes:
        """The next piece of input."""
        request = ExecRequest(stdin=ExecRequest.Stdin(offset=self._offset, data=bytes(16000)))
        return self._of_exec(message(request.SerializeToString()), 16000)

    def _of_exec(self, data: bytes, advance: int = 0) -> bytes:
        """DATA, after what starts the process; nothing when a window is used up."""
        begin = b""
        if self._stream == 1:
            self._stream += 2
            start = ExecRequest.Start(container=ContainerRef(path="."), argv=[b"/bin/dd", b"of=/dev/null"], stdin=True)
            opening = message(ExecRequest(start=start).SerializeToString())
            begin = frame(HEADERS, END_HEADERS, 1, EXEC) + frame(DATA, 0, 1, opening)
            self._windows = [window - len(opening) for window in self._windows]
        if min(self._windows) < len(data):
            time.sleep(0.0005)
            return begin
        self._windows = [window - len(data) for window in self._windows]
        self._offset += advance
        return begin + frame(DATA, 0, 1, data)


KINDS: dict[str, Callable[[Flood], bytes]] = {
    "calls": Flood.calls,
    "pulses": Flood.pulse,
    "control": Flood.control,
    "messages": Flood.messages,
    "input": Flood.input,
}


def main() -> None:
    """See the module's docstring."""
    kind = sys.argv[3]
    enter(int(sys.argv[1]), int(sys.argv[2]))
    selector = selectors.DefaultSelector()
    print("flooding", flush=True)
    while True:
        while len(selector.get_map()) < CONNECTIONS:
            flood = Flood(kind)
            selector.register(flood.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, flood)
        for key, _ in selector.select():
            try:
                key.data.go_on()
            except OSError:
                selector.unregister(key.fileobj)
                key.data.sock.close()


if __name__ == "__main__":
    main()
