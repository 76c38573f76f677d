"""How filesystems may be compressed: what is asked for as `ALGORITHM[:LEVEL]`, and which of it each type knows.

    btrfs      zstd:1-15, zlib:1-9, lzo                       each time that it is mounted
    erofs      lz4, lz4hc:0-12, zstd:0-22, deflate:0-9        when it is made
    squashfs   gzip:1-9, zstd:1-22, xz, lz4, lz4hc            when it is made

Which of them the programs of a host know is theirs to say.
"""

import re
from collections.abc import Mapping

_ALGORITHM = re.compile(r"([a-z0-9]{1,16})(?::([0-9]{1,3}))?")
Levels = range | None

KNOWN: Mapping[str, Mapping[str, Levels]] = {
    "btrfs": {"zstd": range(1, 16), "zlib": range(1, 10), "lzo": None},
    "erofs": {"lz4": None, "lz4hc": range(13), "zstd": range(23), "deflate": range(10)},
    "squashfs": {"gzip": range(1, 10), "zstd": range(1, 23), "xz": None, "lz4": None, "lz4hc": None},
}
# Without anything to say otherwise; erofs is not compressed then.
DEFAULTS = {"squashfs": "gzip"}
# These are made once, of what is to be in them, and are only read from then on.
READ_ONLY = frozenset({"erofs", "squashfs"})


def parted(compression: str) -> tuple[str, int | None]:
    """Algorithm and level of what was found to be right."""
    algorithm, _, level = compression.partition(":")
    return algorithm, int(level) if level else None


def wrong(kind: str, compression: str) -> str:
    """What is wrong with it for a filesystem of this type; empty if nothing is."""
    if kind not in KNOWN:
        return f"is for {', '.join(sorted(KNOWN))}: {kind or 'this type'} does not compress"
    found, known = _ALGORITHM.fullmatch(compression), KNOWN[kind]
    if found is None or found[1] not in known:
        return f"is none that {kind} has: there are {', '.join(known)}, with a level after a colon perhaps"
    levels, level = known[found[1]], found[2]
    if level is None or (levels is not None and int(level) in levels):
        return ""
    if levels is None:
        return f"has a level, and {found[1]} of {kind} has none"
    return f"has the level {level}: {found[1]} of {kind} has {levels.start} to {levels.stop - 1}"
