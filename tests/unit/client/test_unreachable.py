"""What the `sysproc` command says where no service answers: our words, what to do, and nothing of gRPC's own."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).with_name("sysproc"))
WHAT_TO_DO = "sysprocd has ended or hangs"

Answer = Callable[[socket.socket], object]


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[[Answer], str]]:
    """Makes a socket on which somebody answers in a way; its endpoint."""
    with ExitStack() as stack:

        def listen(answer: Answer) -> str:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(tmp_path / "it.sock"))
            server.listen()

            def serve() -> None:
                while True:
                    try:
                        connected, _ = server.accept()
                    except OSError:
                        return  # closed: the test is over
                    stack.callback(connected.close)
                    answer(connected)

            threading.Thread(target=serve, daemon=True).start()
            stack.callback(server.shutdown, socket.SHUT_RDWR)
            return f"unix://{tmp_path}/it.sock"

        yield listen


def said(endpoint: str, *arguments: str) -> tuple[int, list[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "SYSPROC_"))}
    command = [COMMAND, "--endpoint", endpoint, *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode().splitlines()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda connected: None, id="nothing"),
        pytest.param(lambda connected: connected.shutdown(socket.SHUT_RDWR), id="hangs up"),
        pytest.param(lambda connected: connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="HTTP/1"),
    ],
)
def test_who_listens_and_is_no_service_is_told_in_two_lines(listening: Callable[[Answer], str], answer: Answer) -> None:
    endpoint = listening(answer)
    for code, arguments in ((1, ["list"]), (125, ["exec", "x", "--", "true"])):
        returned, lines = said(endpoint, *arguments)
        assert (returned, len(lines)) == (code, 2), lines
        assert endpoint in lines[0] and WHAT_TO_DO in lines[1]


@pytest.mark.parametrize(
    ("endpoint", "word"),
    [
        ("unix:///nosuch/it.sock", "no such socket"),
        ("unix:///etc/passwd", "no socket"),
        ("unix:///" + "x" * 107, "108 bytes"),
        ("unix:", "names no socket"),
        ("tcp://x", "no endpoint"),
    ],
)
def test_what_can_be_no_service_is_told_in_two_lines(endpoint: str, word: str) -> None:
    returned, lines = said(endpoint, "list")
    assert (returned, len(lines)) == (1, 2), lines
    assert word in lines[0]


def test_the_version_of_the_command_needs_no_service() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, timeout=60, check=True)
    assert done.stdout.startswith(b"sysproc 0.")
