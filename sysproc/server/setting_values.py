"""How the text of each sort of setting is read: sizes, directories, endpoints, ranges.

Each returns the value or raises ValueError that says, in a few words, what is wrong. The settings themselves, and
where their texts come from, are in `sysproc.server.settings`.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Parse = Callable[[Any], Any]

# sun_path has 108 bytes with its NUL, unix(7).
LONGEST_SOCKET_PATH = 107
UIDS_PER_CONTAINER = 65536
# The longest name that the service puts into the runtime directory.
LONGEST_NAME_INSIDE = len("/private/grpc.0123456789abcdef.sock")

MOST_PORT = 65535

_TCP = re.compile(
    r"tcp://(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,252})):(?P<port>\d{1,5})"
)
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class UnixEndpoint:
    """A unix socket where the host's callers connect."""

    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


@dataclass(frozen=True)
class TcpEndpoint:
    """A TCP port where callers of other machines connect, by mutual TLS. host: a name or an address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


Endpoint = UnixEndpoint | TcpEndpoint


@dataclass(frozen=True)
class UidRangeSetting:
    """The uids that containers get: the first, and for how many containers at a time."""

    first: int
    count: int

    def __str__(self) -> str:
        return f"{self.first}:{self.count}"


def text_of(raw: object) -> str:
    """A text from a flag, a variable or TOML."""
    if not isinstance(raw, str) or not raw or "\0" in raw:
        raise ValueError(f"{raw!r} is no text")
    return raw


def absolute(raw: object) -> Path:
    """An absolute path, without `..` and with single slashes."""
    path = Path(text_of(raw))
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{path} is not an absolute path")
    return path


def directory(raw: object) -> Path:
    """A directory, made at start if it is not there; short enough for a socket in it."""
    path = absolute(raw)
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH - LONGEST_NAME_INSIDE:
        raise ValueError(
            f"{path} is too long for sockets in it (at most {LONGEST_SOCKET_PATH - LONGEST_NAME_INSIDE} bytes)"
        )
    return path


def endpoint(raw: object) -> Endpoint:
    """`unix:///path` or `tcp://host:port`."""
    url = text_of(raw)
    if url.startswith("tcp://"):
        return tcp_endpoint(url)
    if not url.startswith("unix:///"):
        raise ValueError(f"{url} is no endpoint of the form unix:///path or tcp://host:port")
    path = absolute(url.removeprefix("unix://"))
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"{path} is longer than {LONGEST_SOCKET_PATH} bytes")
    return UnixEndpoint(path)


def tcp_endpoint(url: str) -> TcpEndpoint:
    """`tcp://name:port`, `tcp://192.0.2.1:port`, `tcp://[2001:db8::1]:port`; 0.0.0.0 and [::] are all addresses."""
    match = _TCP.fullmatch(url)
    if match is None:
        raise ValueError(f"{url} is no endpoint of the form tcp://host:port or tcp://[address]:port")
    address, name, port = match["v6"], match["name"], int(match["port"])
    if not 1 <= port <= MOST_PORT:
        raise ValueError(f"{url}: the port is not between 1 and {MOST_PORT}")
    if address is not None:
        ipaddress.IPv6Address(address)
    return TcpEndpoint(address or name.lower(), port)


def endpoints(raw: object) -> tuple[Endpoint, ...]:
    """One or several endpoints: a list, or a text with commas. Each once."""
    urls = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(urls, list | tuple) or not urls:
        raise ValueError(f"{raw!r} is no list of endpoints")
    return tuple(dict.fromkeys(map(endpoint, urls)))


def name_of_group(raw: object) -> str:
    """A group's name; the group need not exist."""
    name = text_of(raw)
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", name):
        raise ValueError(f"{name!r} is no name of a group")
    return name


def first_and_count(raw: object) -> UidRangeSetting:
    """`FIRST:COUNT`; the numbers may be hexadecimal."""
    try:
        first, count = (int(part, 0) for part in text_of(raw).split(":"))
    except ValueError as error:
        raise ValueError(f"{raw!r} is not of the form FIRST:COUNT") from error
    if first < UIDS_PER_CONTAINER or count < 1 or first + count * UIDS_PER_CONTAINER > 2**32 - 1:
        raise ValueError(f"{raw} does not lie between uid {UIDS_PER_CONTAINER} and 2^32-2")
    return UidRangeSetting(first, count)


def number(raw: object, kind: Callable[[Any], int | float]) -> int | float:
    """A number, from a text or from TOML."""
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise ValueError(f"{raw!r} is no number")
    try:
        return kind(raw)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{raw!r} is no number of this sort") from error


def within(value: int | float, least: int | float, most: int | float) -> int | float:
    """The value, if it lies between the two."""
    if not least <= value <= most:
        raise ValueError(f"{value:g} is not between {least:g} and {most:g}")
    return value


def whole(least: int, most: int) -> Parse:
    """A whole number in a range."""

    def parse(raw: object) -> int:
        if isinstance(raw, float):
            raise ValueError(f"{raw!r} is no whole number")
        return int(within(number(raw, int), least, most))

    return parse


def seconds(least: float, most: float) -> Parse:
    """A time in seconds in a range."""
    return lambda raw: float(within(number(raw, float), least, most))


def size_bytes(least: int, most: int) -> Parse:
    """A size in bytes, or with K, M, G, T for powers of 1024."""

    def parse(raw: object) -> int:
        match = _SIZE.fullmatch(str(raw)) if isinstance(raw, str | int) and not isinstance(raw, bool) else None
        if match is None:
            raise ValueError(f"{raw!r} is no size like 1048576 or 16M")
        value = int(match[1]) << 10 * _UNITS[match[2].upper()]
        if not least <= value <= most:
            raise ValueError(f"{raw} is not between {least} and {most} bytes")
        return value

    return parse


def choice(*names: str) -> Parse:
    """One of several words."""

    def parse(raw: object) -> str:
        if raw not in names:
            raise ValueError(f"{raw!r} is none of {', '.join(names)}")
        return str(raw)

    return parse


def trust_domain(raw: object) -> str:
    """The part of an identity between `spiffe://` and the next slash."""
    domain = text_of(raw)
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", domain):
        raise ValueError(f"{domain!r} is no trust domain like `example.org`")
    return domain
