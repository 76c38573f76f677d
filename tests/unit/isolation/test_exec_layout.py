"""The C program and Python agree: every number of `exec.h` has its twin in `exec_spec.py` or `exec_state.py`.

The header is read as text, by the few forms that it uses; a compiler is not needed.
"""

import re
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

import sysproc.isolation.native
from sysproc.isolation import exec_spec, exec_state

HEADER = Path(sysproc.isolation.native.__file__).with_name("exec.h")


# What only one side needs: the sizes of its own buffers, and the ends of lists.
ONLY_IN_C = {
    *("SPEC_WORDS", "CANNOT_EXECUTE", "NOT_FOUND", "IUTF8", "ICANON", "VEOF"),
    *("MOST_TASKS", "SUPERVISOR_FD", "STAT_START_TIME", "STAT_EXIT_CODE"),
}
TWINS: dict[str, type[IntEnum] | type[IntFlag]] = {
    "SPEC_": exec_spec.Word,
    "FLAG_": exec_spec.Flag,
    "STATE_": exec_state.Slot,
    "STEP_": exec_state.Step,
    "PHASE_": exec_state.Phase,
    "EXIT_": exec_state.ExitKind,
}
CONSTANTS = {
    "SPEC_MAGIC_VALUE": exec_spec.MAGIC,
    "SIGNAL_RING": exec_state.SIGNAL_RING,
    "STATE_BYTES": exec_state.STATE_BYTES,
    "STATE_PATH_TEXT": exec_state.PATH_TEXT,
    "STATE_INTERPRETER_TEXT": exec_state.INTERPRETER_TEXT,
    "TEXT_BYTES": exec_state.TEXT_BYTES,
}


def number(text: str) -> int:
    """A literal as C reads it: a leading zero means octal."""
    return int(text, 8) if re.fullmatch(r"0[0-7]+", text) else int(text, 0)


def enumerators() -> Iterator[tuple[str, int]]:
    """Every name of every enum of the header with its value."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, flags=re.DOTALL):
        value = -1
        for item in filter(None, (part.strip() for part in body.split(","))):
            name, _, stated = (part.strip() for part in item.partition("="))
            value = number(stated) if stated else value + 1
            yield name, value


def twins() -> dict[str, int]:
    """What Python says, by the names of the header."""
    named = {f"{prefix}{one.name}": int(one) for prefix, kind in TWINS.items() for one in kind}
    return {**named, **{f"{fd.name}_FD": int(fd) for fd in exec_spec.Fd}, **CONSTANTS}


def test_the_header_is_read_at_all() -> None:
    assert len(dict(enumerators())) > 60


@pytest.mark.parametrize(("name", "value"), [pair for pair in enumerators() if pair[0] not in ONLY_IN_C])
def test_python_says_the_same(name: str, value: int) -> None:
    assert twins()[name] == value


def test_python_says_nothing_else() -> None:
    assert twins().keys() <= dict(enumerators()).keys()


def test_the_texts_and_slots_do_not_overlap() -> None:
    ring_end = 8 * (exec_state.Slot.SIGNAL_RING + exec_state.SIGNAL_RING)
    assert ring_end <= exec_state.PATH_TEXT
    assert exec_state.PATH_TEXT + exec_state.TEXT_BYTES <= exec_state.INTERPRETER_TEXT
    assert exec_state.INTERPRETER_TEXT + exec_state.TEXT_BYTES <= exec_state.STATE_BYTES
