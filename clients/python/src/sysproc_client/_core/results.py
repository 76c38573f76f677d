"""What a command has left when it has ended.

It is collected by `sysproc_client.process` and `sysproc_client.aio.process`.
"""

from dataclasses import dataclass

from sysproc_client._core.exec_machine import Chunk, Ended


@dataclass(frozen=True)
class Result:
    """What a command has left: exit_code, or the signal that ended it, and its output."""

    exit_code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    failure: str = ""


class Collected:
    """The output as it comes."""

    def __init__(self) -> None:
        self._output = {"stdout": bytearray(), "stderr": bytearray()}

    def add(self, chunk: Chunk) -> None:
        """The next piece."""
        self._output[chunk.stream] += chunk.data

    def result(self, ended: Ended) -> Result:
        """With how it ended."""
        output = (bytes(self._output["stdout"]), bytes(self._output["stderr"]))
        return Result(ended.exit_code, ended.signal, *output, ended.failure)
