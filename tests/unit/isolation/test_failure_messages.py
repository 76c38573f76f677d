"""What fails in a forked process is told in one message, whole, whatever the names in it are."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysproc.isolation.builder import error_of, failure_message

AT_ONCE = 4096
TEXTS = ["x", "é", "名", "\U0001f600", "\x01", "\udcff", '"\\', "\n"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_failure_with_a_very_long_name_arrives(text: str) -> None:
    message = failure_message(OSError(errno.ENOENT, "no such file", text * 9000))
    assert len(message) < AT_ONCE
    failure = error_of(message)
    assert failure.errno == errno.ENOENT and len(failure.filename) > 100


@settings(deadline=None)
@given(st.text(max_size=100) | st.binary(max_size=100))
def test_what_arrives_can_be_printed(name: str | bytes) -> None:
    said = error_of(failure_message(OSError(errno.EIO, "failed", name))).filename
    assert said.encode()
    if isinstance(name, bytes) and name.isascii():
        assert said == (os.fsdecode(name) or "failed")


def test_a_failure_without_an_errno_or_a_name_is_one_of_input_and_output() -> None:
    assert error_of(failure_message(OSError("odd"))).errno == errno.EIO
