"""Extended attributes and ACLs of what is unpacked: in the jail, with the new filesystem as its root.

What a container's root may not set is left out and counted, by name. ACLs name users as the archive does; who they are
is in its own /etc/passwd and /etc/group, which may come after the file: those wait for the end. Entries as a whole are
the business of `sysproc.isolation.unpack`, the words of ACLs of `sysproc.isolation.acl_text`.
"""

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sysproc.isolation.acl_text import acl_value

ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
# As many different names are told; a name that is longer is cut.
MOST_NAMES, MOST_NAME = 16, 100
_NO_SUCH_ATTRIBUTE = (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL)
_LISTS = {b"user": "/etc/passwd", b"group": "/etc/group"}
_MOST_OF_A_LIST = 1 << 20


@dataclass
class Counts:
    """What was unpacked so far. attribute_names: which attributes were left out, and how often, the first names."""

    entries: int = 0
    bytes: int = 0
    skipped_devices: int = 0
    skipped_attributes: int = 0
    attribute_names: dict[str, int] = field(default_factory=dict)

    def numbers(self) -> dict[str, int]:
        """How far it is."""
        names = ("entries", "bytes", "skipped_devices", "skipped_attributes")
        return {name: getattr(self, name) for name in names}


def skip(counts: Counts, attribute: bytes) -> None:
    """One that could not be set."""
    counts.skipped_attributes += 1
    shown, names = attribute.decode("utf-8", "backslashreplace")[:MOST_NAME], counts.attribute_names
    if shown in names or len(names) < MOST_NAMES:
        names[shown] = names.get(shown, 0) + 1


class Names:
    """The users and groups of the archive itself."""

    @cached_property
    def _ids(self) -> dict[tuple[bytes, bytes], int]:
        return {(kind, name): number for kind, path in _LISTS.items() for name, number in read_list(path)}

    def id_of(self, kind: bytes, name: bytes) -> int:
        """Raises LookupError."""
        return self._ids[kind, name]


def read_list(path: str) -> list[tuple[bytes, int]]:
    """Names and numbers of a file as /etc/passwd; none of one that is no file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        lines = [line.split(b":") for line in file.read(_MOST_OF_A_LIST).splitlines()]
    return [(line[0], int(line[2])) for line in lines if len(line) > 2 and line[2].isdigit()]


def unknown_yet(kind: bytes, name: bytes) -> int:
    """Before the end nobody is known by name."""
    raise LookupError(kind + b":" + name)


def set_attributes(path: bytes, attributes: Mapping[bytes, bytes], counts: Counts) -> None:
    """Those that a container's root may not set are left out and counted."""
    for name, value in attributes.items():
        try:
            os.setxattr(path, name, value, follow_symlinks=False)
        except OSError as failure:
            if failure.errno == errno.ENOSPC and os.statvfs("/").f_bavail:
                # All those of one file have to fit into one block.
                raise OSError(errno.E2BIG, "attributes are too large", path) from None
            if failure.errno not in _NO_SUCH_ATTRIBUTE:
                raise
            skip(counts, name)


def set_acls(path: bytes, acls: Mapping[bytes, bytes], counts: Counts) -> dict[bytes, bytes]:
    """Set them; those that have to wait for the end are returned, for `set_waiting_acls`.

    They have names of users; or they are for what is made in a directory, and what is unpacked there has its own.
    """
    later = {DEFAULT_ACL: acls[DEFAULT_ACL]} if DEFAULT_ACL in acls else {}
    for attribute, text in acls.items() - later.items():
        try:
            set_attributes(path, {attribute: acl_value(text, unknown_yet)}, counts)
        except LookupError:
            later[attribute] = text
        except ValueError:
            skip(counts, attribute)
    return later


def set_waiting_acls(path: bytes, acls: Mapping[bytes, bytes], names: Names, counts: Counts) -> None:
    """When everything is there. A name that nobody has is as an attribute that cannot be set."""
    for attribute, text in acls.items():
        try:
            set_attributes(path, {attribute: acl_value(text, names.id_of)}, counts)
        except (LookupError, ValueError, FileNotFoundError, NotADirectoryError):
            skip(counts, attribute)
