"""Zstandard that comes in parts, from anybody, unpacked in bounded memory: a window of 128 MiB, a few MiB at a time.

One frame after the other, as `zstd -d` reads them. What it becomes is a volume (`sysproc.volume_imports`) or a tar
(`sysproc.isolation.decompression`); how images are packed is in `sysproc.storage.vsf.pieces`.
"""

from collections.abc import Iterator

import zstandard

from sysproc.errors import InvalidArgument

# As zstd itself does unless it is told otherwise (`--long=27`).
MOST_WINDOW = 1 << 27
# A block of zeros is 4 bytes that become 128 KiB: so much at a time becomes 32 MiB at most.
SLICE_BYTES = 1 << 10


class Unzstd:
    """One stream, from its beginning to its end."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._any = False

    @property
    def whole(self) -> bool:
        """Whether it may end here: behind a frame."""
        return self._any and self._frame is None

    def unpacked(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes become. Raises InvalidArgument. Blocks."""
        for at in range(0, len(data), SLICE_BYTES):
            rest = data[at : at + SLICE_BYTES]
            while rest:
                block, rest = self._unpack(rest)
                if block:
                    yield block

    def _unpack(self, data: bytes) -> tuple[bytes, bytes]:
        if self._frame is None:
            self._frame, self._any = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).decompressobj(), True
        frame = self._frame
        try:
            block = frame.decompress(data)
        except zstandard.ZstdError as failure:
            raise broken(str(failure)) from failure
        if not frame.eof:
            return block, b""
        self._frame = None
        return block, frame.unused_data


def broken(why: str) -> InvalidArgument:
    """The error for what is no zstd."""
    return InvalidArgument(
        "This is no zstd, or it is damaged.",
        details=f"{why}.",
        resolution="Check it with `zstd -t FILE`.",
        reason="BAD_TRANSFER",
    )
