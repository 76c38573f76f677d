"""What a field may hold by itself, whatever exists: names, sizes, identifiers, bytes for the kernel.

A `Findings` collects everything that is wrong with one request and raises it at once. The rules are those of the
comments in `proto/`; what is wrong against existing things is found by the verbs. Which field is checked by which
rule is in `sysproc.server.convert`, where the message is read.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from sysproc.errors import FieldViolation, InvalidArgument
from sysproc.ids import is_hex_id

T = TypeVar("T")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
HOSTNAME = re.compile(r"[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")
LABEL_KEY = re.compile(r"[a-zA-Z0-9._/-]{1,63}")
EXEC_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

MIB = 2**20
# One argument or variable, execve(2): MAX_ARG_STRLEN. All of them: a quarter of the usual stack of 8 MiB.
ARGUMENT_BYTES = 128 * 1024 - 1
ARGUMENTS_BYTES = 2 * MIB
PATH_BYTES = 4095
LIMITS = {
    "memory_bytes": (4 * MIB, 2**50),
    "cpu_millis": (10, 1_000_000),
    "pids": (4, 4 * 2**20),  # PID_MAX_LIMIT of the kernel
    "descendants": (0, 2**20),
    "depth": (0, 256),
    "storage_bytes": (MIB, 2**60),
}
# In seconds: up to ten years.
LIFETIME_S = (1, 10 * 366 * 86400)
# What ext4 can be with 32-bit block numbers.
ROOT_BYTES = (MIB, 2**44)
LABELS, LABEL_VALUE_BYTES = 64, 256
SPOOL_BYTES = (64 * 1024, 2**30)
UIDS = (0, 65535)
API_USERS, OTHER_UIDS = 64, (1, 65535)
SIGNALS = (1, 64)
TERMINAL = (1, 65535)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a container or an image."""
    return NAME.fullmatch(text) is not None and not is_hex_id(text)


class Findings:
    """What is wrong with one request, by field."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, why: str) -> None:
        """Something is wrong with a field."""
        self._violations.append(FieldViolation(field, why))

    def check(self, good: bool, field: str, why: str) -> None:
        """Unless good, something is wrong with a field."""
        if not good:
            self.add(field, why)

    def raise_if_any(self) -> None:
        """InvalidArgument with all that was found, if something was."""
        if self._violations:
            raise InvalidArgument(
                " ".join(f"`{one.field}` {one.description}." for one in self._violations[:3]),
                details=f"And {len(self._violations) - 3} more." if len(self._violations) > 3 else "",
                resolution="Correct the request; it will fail in the same way each time.",
                reason="BAD_FIELDS",
                violations=self._violations,
            )

    # -- rules

    def name(self, field: str, text: str) -> None:
        """A container's or an image's name; empty is left to the caller."""
        self.check(not is_hex_id(text), field, "looks like an id: a name is not 16 hex digits")
        self.check(
            NAME.fullmatch(text) is not None,
            field,
            "is no name: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, the first a letter or digit",
        )

    def hostname(self, field: str, text: str) -> None:
        """A host name inside a container, hostname(7)."""
        good = len(text) <= 64 and HOSTNAME.fullmatch(text) is not None
        self.check(good, field, "is no host name: letters, digits, `-`, parts of 1 to 63 with dots between, at most 64")

    def number(self, field: str, value: int | None, least_most: tuple[int, int]) -> None:
        """A number in a range; absent is good."""
        least, most = least_most
        self.check(value is None or least <= value <= most, field, f"is {value}: it has to be {least} to {most}")

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """Labels of a container, or those to look for."""
        self.check(len(labels) <= LABELS, field, f"are {len(labels)}: at most {LABELS}")
        for key, value in list(labels.items())[: LABELS + 1]:
            good = LABEL_KEY.fullmatch(key) is not None
            self.check(good, f"{field}[{key[:80]!r}]", "is no key: 1 to 63 of letters, digits, `.`, `_`, `/`, `-`")
            short = len(value.encode()) <= LABEL_VALUE_BYTES
            self.check(short, f"{field}[{key[:80]!r}]", f"has more than {LABEL_VALUE_BYTES} bytes")

    def request_id(self, field: str, text: str) -> None:
        """A UUID, or nothing."""
        self.check(not text or UUID.fullmatch(text) is not None, field, f"is no UUID like {uuid.UUID(int=0)}")

    def exec_id(self, field: str, text: str) -> None:
        """The name of an exec'd process."""
        good = EXEC_ID.fullmatch(text) is not None and text.strip(".") != ""
        self.check(good, field, "is no exec id: 1 to 64 of letters, digits, `.`, `_`, `-`, not only dots")

    def arguments(self, field: str, arguments: Iterable[bytes]) -> None:
        """What execve(2) takes: no NUL, none too long, not too much of it."""
        total = 0
        for position, argument in enumerate(arguments):
            self.check(b"\0" not in argument, f"{field}[{position}]", "contains NUL")
            self.check(len(argument) <= ARGUMENT_BYTES, f"{field}[{position}]", f"has more than {ARGUMENT_BYTES} bytes")
            total += len(argument) + 1
        self.check(total <= ARGUMENTS_BYTES, field, f"have {total} bytes: at most {ARGUMENTS_BYTES}")

    def environment(self, field: str, variables: Iterable[tuple[bytes, bytes]]) -> None:
        """Variables: each once, with a name that can be one."""
        seen: set[bytes] = set()
        lines = []
        for position, (name, value) in enumerate(variables):
            self.check(name != b"" and b"=" not in name, f"{field}[{position}].name", "is empty or contains `=`")
            self.check(name not in seen, f"{field}[{position}].name", "is there twice")
            seen.add(name)
            lines.append(name + b"=" + value)
        self.arguments(field, lines)

    def path(self, field: str, path: bytes) -> None:
        """An absolute path inside a container."""
        good = path.startswith(b"/") and b"\0" not in path and len(path) <= PATH_BYTES
        self.check(good, field, f"is no absolute path of at most {PATH_BYTES} bytes without NUL")


def valid(find: Callable[[Findings], T]) -> T:
    """The result of reading a message, or InvalidArgument with everything that was found meanwhile."""
    findings = Findings()
    result = find(findings)
    findings.raise_if_any()
    return result
