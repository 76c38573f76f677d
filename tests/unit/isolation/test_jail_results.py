"""What the unpacker says at the end: all of it arrives, and nothing of it is more than a record or a message takes."""

import json
import os
import socket
from typing import Any

import pytest

from sysproc.isolation.attributes import MOST_NAME, MOST_NAMES, Counts, skip
from sysproc.isolation.builder import Born
from sysproc.isolation.jail import counts_of, relay
from sysproc.isolation.tar_headers import MAX_NUMBER

SAID = {"entries": 1, "bytes": 2, "skipped_devices": 3, "skipped_attributes": 4, "attribute_names": {"user.x": 5}}


def relayed(*messages: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """The result, and the progress that was passed on."""
    theirs, go = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, go, ours, report:
        for message in messages:
            theirs.send(json.dumps(message).encode())
        result = relay(Born(pid=os.getpid(), pidfd=-1, go=go), report)
        report.close()
        told = iter(lambda: ours.recv(1 << 16), b"")
        return result, [json.loads(one)["progress"] for one in told]


@pytest.mark.parametrize("letter", ["\N{GRINNING FACE}", "\N{EURO SIGN}", "x", "\0"])
def test_the_longest_names_of_attributes_arrive(letter: str) -> None:
    counts = Counts()
    for number in range(MOST_NAMES):
        skip(counts, f"{number:02}{letter * 200}".encode())
    assert counts.skipped_attributes == MOST_NAMES
    result, _ = relayed({"result": {**SAID, "attribute_names": counts.attribute_names}})
    assert result["attribute_names"] == {f"{number:02}{letter * 98}": 1 for number in range(MOST_NAMES)}


@pytest.mark.parametrize(("said", "kept"), [(-1, 0), (1 << 64, MAX_NUMBER), (7, 7)])
def test_numbers_are_those_of_a_record(said: int, kept: int) -> None:
    numbers = dict.fromkeys(("entries", "bytes", "skipped_devices", "skipped_attributes"), said)
    found = counts_of({**numbers, "attribute_names": {"user.x": said}})
    assert found == {**dict.fromkeys(numbers, kept), "attribute_names": {"user.x": kept}}
    result, progress = relayed({"progress": numbers}, {"result": SAID})
    assert (result, progress) == (SAID, [dict.fromkeys(numbers, kept)])


def test_names_are_text_and_not_too_long() -> None:
    names = {"\ud800" + "x" * 2 * MOST_NAME: 1}
    (name,) = counts_of({**SAID, "attribute_names": names})["attribute_names"]
    assert name == ("\\ud800" + "x" * MOST_NAME)[:MOST_NAME]
