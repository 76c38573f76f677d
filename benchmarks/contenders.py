"""Whose each contender is, by benchmark: ours, or a peer's, whose time is the machine's and not our doing.

Where a contender is new, it is written down here as well; a test demands it of all that the kept run has.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sides:
    """The contenders of one benchmark. theirs: whether they are installed or not."""

    ours: frozenset[str]
    theirs: frozenset[str]


# Benchmarks in which everything is ours.
ALONE = frozenset(
    {
        "create, destroy",
        "a tree of 100",
        "making volumes",
        "mounting volumes",
        "64 MiB through an exec",
        "filters of system calls",
        "making a filter",
        "claim a uid range",
        "the interceptor, each call",
        "flood",
        "load",
    }
)
RUNTIMES = ("crun", "runc")
COPIES = Sides(
    ours=frozenset({"snapshot", "clone", "snapshot, mounted", "clone, mounted"}),
    theirs=frozenset({"cp --sparse=always"}),
)
BESIDE_PEERS = {
    "one-shot /bin/true": Sides(
        ours=frozenset({"sysproc"}),
        theirs=frozenset({"spawn on the host", "bwrap", *(f"{runtime} run" for runtime in RUNTIMES)}),
    ),
    "exec /bin/true": Sides(
        ours=frozenset({"sysproc"}),
        theirs=frozenset(does for one in RUNTIMES for does in (f"{one} exec", f"nsenter into {one}'s")),
    ),
    "mounting, beside others": Sides(
        ours=frozenset({"mount, umount"}),
        theirs=frozenset(
            {
                "mount -o loop, umount",
                "systemd-dissect --mount, --umount",
                "systemd-nspawn --image, /bin/true",
                "podman run --volume, /bin/true",
            }
        ),
    ),
    "copying 1 GiB, 200 MiB used": COPIES,
    "copying 1 GiB, 200 MiB used, with reflink": COPIES,
}


def is_peer(benchmark: str, contender: str) -> bool:
    """Whether it is not ours. What nobody has written down counts as ours: it is not to be overlooked."""
    sides = BESIDE_PEERS.get(benchmark)
    return sides is not None and contender in sides.theirs


def is_classified(benchmark: str, contender: str) -> bool:
    """Whether anybody has said whose it is."""
    sides = BESIDE_PEERS.get(benchmark)
    return benchmark in ALONE or (sides is not None and contender in sides.ours | sides.theirs)
