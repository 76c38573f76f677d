"""Sections of docs/ISOLATION.md that tests write: a table between two comments, the same whoever writes it.

    <!-- known escapes -->
    | … |
    <!-- /known escapes -->

What stands around them is written by people; what is in them, by the tests that have shown it.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/ISOLATION.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As Markdown has it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_section(name: str, content: str) -> None:
    """Put the content between the comments of this name. The machine in the machine has no page of its own."""
    if os.environ.get("SYSPROC_TEST_IN_VM"):
        return
    old = PAGE.read_text()
    between = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    new, found = between.subn(lambda match: f"{match[1]}{content}\n{match[2]}", old)
    assert found == 1, f"{PAGE} has no place for the section {name!r}"
    if new != old:
        PAGE.write_text(new)


def row_of(docstring: str) -> tuple[str, str]:
    """The two sides of a docstring with `Here:`: what it was, and what stops it."""
    was, _, here = docstring.partition("\n\nHere: ")
    return " ".join(was.split()), " ".join(here.split())
