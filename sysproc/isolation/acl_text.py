"""POSIX ACLs in words, as tar has them, and as the kernel takes them: acl(5), star(1), linux/posix_acl_xattr.h.

    user::rwx,user:lisa:r-x:1000,group::r-x,mask::r-x,other::---      entries, by commas or lines
    version 2; { tag, permissions, id }*                              the value of system.posix_acl_access

A number at the end of an entry counts, else one in the place of the name. Pure; whom a name stands for is asked of the
caller, and what is set on which file is decided in `sysproc.isolation.attributes`.
"""

import re
import struct
from collections.abc import Callable

# Of a kind, b"user" or b"group", and a name. Raises LookupError.
IdOf = Callable[[bytes, bytes], int]

_KINDS = {b"u": b"user", b"g": b"group", b"m": b"mask", b"o": b"other"}
# By kind: the tag of the owner's entry, and of one with a name.
_TAGS = {b"user": (0x01, 0x02), b"group": (0x04, 0x08), b"mask": (0x10, 0x10), b"other": (0x20, 0x20)}
_PERMISSIONS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}
_NO_ID = 0xFFFFFFFF
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_VERSION = 2
_COMMENT, _SEPARATOR = re.compile(rb"#[^\n]*"), re.compile(rb"[,\n]")
_NUMBER = re.compile(rb"[0-9]{1,10}")


def acl_value(text: bytes, id_of: IdOf) -> bytes:
    """The value of the attribute. Raises ValueError for what is no ACL, LookupError for an unknown name."""
    lines = (line.strip() for line in _SEPARATOR.split(_COMMENT.sub(b"", text)))
    entries = [_entry(line, id_of) for line in lines if line]
    entries.sort(key=lambda entry: (entry[0], entry[2]))
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)


def _entry(line: bytes, id_of: IdOf) -> tuple[int, int, int]:
    """Tag, permissions, id."""
    kind, *words = (word.strip() for word in line.removeprefix(b"default:").removeprefix(b"d:").split(b":"))
    kind = _KINDS.get(kind, kind)
    if kind not in _TAGS or not words:
        raise ValueError(f"{line!r} is no entry of an ACL")
    own, named = _TAGS[kind]
    if kind in (b"mask", b"other"):
        return own, _permissions(words[-1]), _NO_ID
    name, permissions, *number = words if len(words) > 1 else (b"", *words)
    if not name:
        return own, _permissions(permissions), _NO_ID
    return named, _permissions(permissions), _id(kind, name, number[-1] if number else name, id_of)


def _permissions(word: bytes) -> int:
    if not word or any(char not in _PERMISSIONS for char in word):
        raise ValueError(f"{word!r} are no permissions")
    return sum({_PERMISSIONS[char] for char in word})


def _id(kind: bytes, name: bytes, number: bytes, id_of: IdOf) -> int:
    found = int(number) if _NUMBER.fullmatch(number) else id_of(kind, name)
    if not 0 <= found < _NO_ID:
        raise ValueError(f"{found} is no id")
    return found
