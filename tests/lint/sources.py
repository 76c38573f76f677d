"""The Python files of the project, as the house rules look at them.

Only reading belongs here; each rule is a test in `tests/lint/test_house_rules.py`.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
TREES = ("sysproc", "clients/python", "tests", "benchmarks", "docs", "examples", "hatch_build.py")
GENERATED = "nightos"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its path below the root, its text, its syntax tree."""

    path: Path

    @cached_property
    def text(self) -> str:
        """The whole file."""
        return (ROOT / self.path).read_text()

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, str(self.path))

    @property
    def docstring(self) -> str:
        """The module's docstring, empty if it has none."""
        return ast.get_docstring(self.tree) or ""

    def imports(self) -> Iterator[str]:
        """The dotted names of all modules that it imports, inside functions too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def functions(self) -> Iterator[Function]:
        """All functions and methods."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def __str__(self) -> str:
        return str(self.path)


@cache
def sources() -> tuple[Source, ...]:
    """Every file that a person wrote."""
    files = (
        file for tree in TREES for file in ([ROOT / tree] if tree.endswith(".py") else (ROOT / tree).rglob("*.py"))
    )
    relative = (file.relative_to(ROOT) for file in files)
    return tuple(Source(path) for path in sorted(relative) if GENERATED not in path.parts)


def below(*trees: str) -> tuple[Source, ...]:
    """The files of some of the trees."""
    return tuple(source for source in sources() if any(source.path.is_relative_to(tree) for tree in trees))


def body_lines(function: Function) -> int:
    """The lines of a function without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring
