"""The keys that leave a process to itself, and all other input, which goes on unchanged."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc_client.cli.detaching import DetachKeys, sequence

PARAMETER = click.Option(["--detach-keys"])


def read(text: str) -> bytes:
    return sequence(click.Context(click.Command("exec")), PARAMETER, text)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("a", b"a"),
        ("~,.", b"~."),
        ("ctrl-],a", b"\x1da"),
        ("none", b""),
    ],
)
def test_keys_are_written_by_their_names(text: str, keys: bytes) -> None:
    assert read(text) == keys


@pytest.mark.parametrize("text", ["", "ctrl", "ctrl-", "ctrl-1", "ab", "ctrl-p,", "ctrl-pq", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        read(text)


@given(st.lists(st.binary(max_size=5)), st.sampled_from([b"", b"\x10\x11", b"aab", b"x"]))
def test_what_is_not_the_sequence_goes_on_as_it_came(pieces: list[bytes], keys: bytes) -> None:
    taker = DetachKeys(keys)
    passed = b"".join(taker.take(piece) for piece in pieces if not taker.complete)
    typed = b"".join(pieces)
    if not keys or keys not in typed:
        assert not taker.complete and typed.startswith(passed)
        assert keys.startswith(typed[len(passed) :]), "only a beginning of the keys is kept"
    else:
        assert taker.complete and passed == typed[: typed.index(keys)]


def test_the_keys_may_come_one_by_one() -> None:
    taker = DetachKeys(b"\x10\x11")
    assert [taker.take(bytes([byte])) for byte in b"a\x10b\x10\x10\x11"] == [b"a", b"", b"\x10b", b"", b"\x10", b""]
    assert taker.complete
