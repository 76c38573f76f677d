"""ACLs in words become what the kernel takes: those of GNU tar, star and bsdtar, and nothing else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.isolation.acl_text import acl_value

NOBODY = 0xFFFFFFFF


def entries(text: str) -> list[tuple[int, int, int]]:
    """Tag, permissions, id; lisa has 7, and her group 8."""
    ids = {(b"user", b"lisa"): 7, (b"group", b"lisa"): 8}
    value = acl_value(text.encode(), lambda *who: ids[who])
    assert value[:4] == struct.pack("<I", 2)
    return list(struct.iter_unpack("<HHI", value[4:]))


WRITTEN = {
    "lines, as GNU tar": "user::rwx\nuser:lisa:r-x\ngroup::r-x\nmask::r-x\nother::---\n",
    "commas, with numbers at the end, as star": "user::rwx,user:lisa:r-x:7,group::r-x,mask::r-x,other::---",
    "numbers only": "user::rwx,user:7:r-x,group::r-x,mask::r-x,other::---",
    "short, in any order, with comments": "o::---,m::r-x,u:lisa:r-x #effective:r-x\ng::r-x,u::rwx",
    "marked as default, with fewer colons": "default:user::rwx,d:user:lisa:r-x,group:r-x,mask:r-x,other:-",
}


@pytest.mark.parametrize("how", WRITTEN)
def test_whoever_has_written_it_it_is_the_same(how: str) -> None:
    assert entries(WRITTEN[how]) == [(1, 7, NOBODY), (2, 5, 7), (4, 5, NOBODY), (16, 5, NOBODY), (32, 0, NOBODY)]


def test_a_number_at_the_end_counts_more_than_the_name() -> None:
    assert entries("user:lisa:r--:9") == [(2, 4, 9)]
    assert entries("group:lisa:r--") == [(8, 4, 8)]


def test_an_unknown_name_is_told_apart_from_nonsense() -> None:
    with pytest.raises(LookupError):
        entries("user:nobody-here:rwx")


@pytest.mark.parametrize("text", ["user", "user:lisa", "owner@:rwx:allow", "user::rwz", "user:4294967295:r--", "a:b:c"])
def test_what_is_no_acl_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no entry|no permissions|no id"):
        entries(text)


@given(st.binary(max_size=60) | st.text("usergrop:,-rwx0123\n#", max_size=60).map(str.encode))
def test_any_bytes_are_an_answer(text: bytes) -> None:
    try:
        acl_value(text, lambda *_: 1)
    except ValueError:
        return
