"""What becomes of a log whose disk is full: nobody else notices."""

import errno
import io

import pytest
import structlog

from sysproc.server.logs import WhileThereIsRoom


def test_a_full_disk_below_the_log_ends_nothing() -> None:
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0), write_through=True) as full:
        with pytest.raises(OSError) as failure:
            structlog.PrintLogger(full).info("lost")
        assert failure.value.errno == errno.ENOSPC
        structlog.PrintLogger(WhileThereIsRoom(full)).info("lost")  # type: ignore[arg-type]  # it uses these two only


def test_another_failure_is_told() -> None:
    with open("/dev/null") as unwritable, pytest.raises(OSError):
        structlog.PrintLogger(WhileThereIsRoom(unwritable)).info("lost")  # type: ignore[arg-type]  # as above
