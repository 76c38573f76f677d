"""Lets an attempt meet a target, and judges what they say: has anything crossed?

Secret and message are new each time, and known to one end only: what turns up at the other has crossed. The attempt
is told everything that could help it, as the target sees it and as the host does. The ends are `tests.isolation.ends`,
the channels `tests.isolation.channels`.
"""

import errno
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.isolation.ends import End, Place, Silent

TRIES = 20
_OWN = ("secret", "message")
_PIDS = ("pid", "child")


@dataclass(frozen=True)
class Crossing:
    """What came of one attempt.

    at_target, at_attempt: what has crossed to this end, empty if nothing has.
    absent: what the kernel does not have, or does not give to one of the ends; empty if both could do their part.
    met: what was tried, with the errno that it met; for people who look why.
    """

    at_target: tuple[str, ...]
    at_attempt: tuple[str, ...]
    absent: tuple[str, ...]
    met: tuple[str, ...]

    @property
    def evidence(self) -> tuple[str, ...]:
        """What has crossed, in whatever direction."""
        return (*self.at_target, *self.at_attempt)

    def __str__(self) -> str:
        return "; ".join([*self.evidence, *self.absent, *self.met[:12]])


def meet(channel: str, target_place: Place, attempt_place: Place) -> Crossing:
    """Set the target up, let the attempt try, ask the target while the attempt still holds what it has."""
    secret, message = f"{random.getrandbits(32):08x}", str(random.randrange(10_000_000, 20_000_000))
    with target_place.start(["target", channel, secret]) as target:
        if not target.listen("ready"):
            return _judge(channel, target, None, secret, message)
        return _attempt(channel, target, target_place, attempt_place, secret, message)


def _attempt(channel: str, target: End, target_place: Place, place: Place, secret: str, message: str) -> Crossing:
    words = ["attempt", channel, message, *knowledge(target, target_place)]
    for _ in range(TRIES):
        with place.start(words) as attempt:
            attempt.listen("held")
            if attempt.all("again"):
                continue
            target.go_on()
            attempt.go_on()
            return _judge(channel, target, attempt, secret, message)
    raise Silent(f"{channel}: the attempt got the target's pid {TRIES} times")


def knowledge(target: End, place: Place) -> list[str]:
    """Everything that the target hinted at; pids, addresses and cgroups also as the host has them."""
    hints = [hint.partition(" ")[::2] for hint in target.all("hint")]
    known = [(name, value) for name, value in hints if name not in _OWN]
    for name, value in hints:
        if name in _PIDS and (host_pid := place.host_pid(int(value))):
            known.append((name, str(host_pid)))
            known += [("cgroup", path) for path in cgroups(host_pid)]
    known += [("address", address) for address in ("127.0.0.1", "::1", *addresses_of_host())]
    return [f"{name}={value}" for name, value in dict.fromkeys(known)]


def cgroups(pid: int) -> set[str]:
    """Where a process of the host is in the hierarchies, without the roots."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {path for line in lines if (path := line.split(":", 2)[2]) != "/"}


def addresses_of_host() -> Iterator[str]:
    """IPv4 and IPv6 addresses of the host's links."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    for address, kind in pairwise(lines):
        if "host LOCAL" in kind:
            yield address.split()[-1]
    for line in Path("/proc/net/if_inet6").read_text().splitlines():
        yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))


def _judge(channel: str, target: End, attempt: End | None, secret: str, message: str) -> Crossing:
    ends = [target] if attempt is None else [target, attempt]
    absent = tuple(_explained(text) for end in ends for text in end.all("absent"))
    if attempt is None and not absent:
        raise Silent(f"{channel}: the target said {target.said}")
    secret, message = _override("secret", target, secret), _override("message", attempt, message)
    at_target = [f"reached: {text}" for text in target.all("reached")]
    at_target += [f"received {text}" for text in target.all("received") if message in text]
    at_attempt = [f"reached: {text}" for text in (attempt.all("reached") if attempt else [])]
    at_attempt += [f"learned {text}" for text in (attempt.all("learned") if attempt else []) if secret in text]
    met = tuple(dict.fromkeys(_explained(text) for text in (attempt.all("tried") if attempt else [])))
    return Crossing(tuple(at_target), tuple(at_attempt), absent, met)


def _override(name: str, end: End | None, value: str) -> str:
    """An end may have room for a part of it only."""
    hints = [hint.partition(" ") for hint in (end.all("hint") if end else [])]
    return next((text for first, _, text in hints if first == name), value)


def _explained(text: str) -> str:
    *words, number = text.split()
    return f"{' '.join(words)}: {errno.errorcode.get(int(number), 'ok') if int(number) else 'ok'}"
