"""How far the reader of an output may confirm, and what may be forgotten then.

The files are real, their supervisor is not there; with one, and through gRPC, it is in `tests.e2e`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysproc.errors import OutOfRange
from sysproc.exec_reader import SharedOutput
from sysproc.isolation.exec_state import Slot, StatePage
from sysproc.isolation.spool import Spool

WRITTEN = b"0123456789"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[StatePage]:
    os.close(StatePage.create(tmp_path / "state"))
    page = StatePage.open(tmp_path / "state")
    yield page
    page.close()


@pytest.fixture
def output(tmp_path: Path, page: StatePage) -> Iterator[SharedOutput]:
    """An output of ten bytes."""
    (tmp_path / "stdout").write_bytes(WRITTEN)
    fd = os.open(tmp_path / "stdout", os.O_RDWR | os.O_CLOEXEC)
    spool = Spool(fd, page, Slot.STDOUT_FREED, Slot.STDOUT_TAKEN)
    yield SharedOutput("stdout", spool, 1 << 20, False, lambda: None)
    os.close(fd)


async def test_a_client_may_confirm_before_we_learn_that_it_was_sent(output: SharedOutput, page: StatePage) -> None:
    reader = output.attach(None)
    sending = await reader.next()
    assert sending is not None
    reader.confirm(len(WRITTEN))
    reader.sent(sending)
    assert page[Slot.STDOUT_TAKEN] == len(WRITTEN)


async def test_what_is_only_on_its_way_is_not_forgotten(output: SharedOutput, page: StatePage) -> None:
    reader = output.attach(None)
    sending = await reader.next()
    assert sending is not None
    output.free_taken()
    assert page[Slot.STDOUT_TAKEN] == 0
    reader.sent(sending)
    assert page[Slot.STDOUT_TAKEN] == len(WRITTEN)


async def test_what_was_never_offered_cannot_be_confirmed(output: SharedOutput) -> None:
    reader = output.attach(4)
    with pytest.raises(OutOfRange):
        reader.confirm(5)
    await reader.next()
    with pytest.raises(OutOfRange):
        reader.confirm(len(WRITTEN) + 1)
