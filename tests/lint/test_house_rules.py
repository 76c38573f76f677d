"""The house rules that no tool knows: sizes, docstrings, names, where ctypes and shared names may be.

How the files are read is in `tests.lint.sources`. Types, style, layers and proto have their tests beside it.
"""

import re
import subprocess
from statistics import quantiles

from tests.lint.sources import ROOT, below, body_lines, sources

MOST_LINES_OF_A_FILE = 500
# Ninety of a hundred functions are at most so long, without the docstring.
P90_LINES_OF_A_FUNCTION = 20
REFUSED_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)($|_)")
# A module of ours that a docstring names: `sysproc.linux.mounts`, `tests.leaks`.
NAMED_MODULE = re.compile(r"`((?:sysproc|sysproc_client|tests|benchmarks)(?:\.[a-z_0-9]+)+)`")


def exists(dotted: str) -> bool:
    """Whether the dotted name is a module, or a name inside one."""
    path = ROOT / ("clients/python/src" if dotted.startswith("sysproc_client") else "") / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module, name = path.parent, path.name
    files = (module.with_suffix(".py"), module / "__init__.py")
    return any(file.is_file() and re.search(rf"\b{name}\b", file.read_text()) for file in files)


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    assert [str(source) for source in sources() if source.text.count("\n") > MOST_LINES_OF_A_FILE] == []


def test_a_module_says_what_belongs_in_it() -> None:
    """What belongs here, what does not, and where that lives. A package without code says nothing."""
    assert [str(source) for source in sources() if source.text and not source.docstring] == []


def test_the_modules_that_a_docstring_names_exist() -> None:
    lost = [(str(source), name) for source in sources() for name in NAMED_MODULE.findall(source.docstring)]
    assert [(source, name) for source, name in lost if not exists(name)] == []


def test_no_file_is_called_utils_helpers_or_manager() -> None:
    parts = [(str(source), part) for source in sources() for part in source.path.with_suffix("").parts]
    assert [source for source, part in parts if REFUSED_NAMES.search(part)] == []


def test_no_class_or_function_is_called_a_helper_or_manager() -> None:
    names = re.compile(r"(Utils?|Helpers?|Managers?)$")
    bad = [
        f"{source}:{number} {line.strip()}"
        for source in sources()
        for number, line in enumerate(source.text.splitlines(), 1)
        if (found := re.match(r"\s*(?:class|def|async def) (\w+)", line)) and names.search(found[1])
    ]
    assert bad == []


def test_functions_are_short() -> None:
    lengths = [body_lines(function) for source in below("sysproc") for function in source.functions()]
    assert quantiles(lengths, n=10)[-1] <= P90_LINES_OF_A_FUNCTION


def test_ctypes_is_imported_in_sysproc_linux_only() -> None:
    elsewhere = [
        str(source)
        for source in below("sysproc", "clients")
        if not source.path.is_relative_to("sysproc/linux")
        and any(name.split(".")[0] == "ctypes" for name in source.imports())
    ]
    assert elsewhere == []


def test_no_generated_file_is_committed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    assert [name for name in tracked if "_pb2" in name or name.endswith("sysproc-native")] == []


def test_a_reason_stands_beside_each_ignore() -> None:
    """They name what they silence, and a comment on the same line or the one above says why."""
    bad = []
    for source in below("sysproc", "clients"):
        lines = source.text.splitlines()
        for number, line in enumerate(lines):
            if (found := re.search(r"#\s*(noqa|type: ignore)(.*)$", line)) is None:
                continue
            above = lines[number - 1].strip() if number else ""
            if not re.search(r"\s-\s|\s#\s|\s—\s", found[2]) and not above.startswith("#"):
                bad.append(f"{source}:{number + 1} {line.strip()}")
    assert bad == []
