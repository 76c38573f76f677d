"""What the tests of the server share."""

import asyncio

import pytest
import uvloop

from tests.unit.server.test_relay import LoopFactory


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Both loops: the daemon's own, and Python's."""
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
