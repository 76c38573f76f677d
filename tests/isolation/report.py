"""Writes the sections of docs/ISOLATION.md that test runs fill: each between two comments with its name.

    <!-- channels -->
    whatever the last run wrote
    <!-- /channels -->

Another test module adds a section of its own: it collects its results while its tests run, and when all of them have,
calls `write("name", text)`, best in the teardown of a module-scoped fixture. A section that is not in the page yet
is added at its end; one whose tests did not run, or only some of them, is not written and keeps its text. The text
must be the same whenever the results are: no times, no pids, no versions. Everything outside of sections is written by
people. In the virtual machine nothing is written: another kernel may have other channels.
"""

import re
from pathlib import Path

from tests.isolation.crossing import in_vm

PAGE = Path(__file__).parents[2] / "docs" / "ISOLATION.md"


def write(name: str, text: str) -> None:
    """Put this text into the section, if the page says something else."""
    if in_vm():
        return
    before = PAGE.read_text() if PAGE.exists() else "# Isolation\n"
    after = replaced(before, name, text)
    if after != before:
        PAGE.write_text(after)


def replaced(page: str, name: str, text: str) -> str:
    """The page with this text in the section."""
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->"
    pattern = re.compile(f"<!-- {re.escape(name)} -->\n.*?<!-- /{re.escape(name)} -->", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: section, page)
    return f"{page.rstrip()}\n\n{section}\n"


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
