"""All failpoints of the sources, found by reading them: a failpoint that no test knows cannot exist."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "sysproc"


def failpoints_in(source: str) -> Iterator[str]:
    """The names in calls of `failpoint`; each is a literal."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
            (name,) = node.args
            assert isinstance(name, ast.Constant) and isinstance(name.value, str), ast.unparse(node)
            yield name.value


def all_failpoints() -> list[str]:
    """Every name, in order."""
    files = (file for file in sorted(SOURCES.rglob("*.py")) if file.name != "failpoints.py")
    return sorted({name for file in files for name in failpoints_in(file.read_text())})
