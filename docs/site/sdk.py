"""The reference of the Python SDK: which classes are shown where, and docstrings as reStructuredText.

Sphinx's autodoc reads them; it is told so by `docs/site/conf.py`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import sysproc_client
from sysproc_client import SysprocError, aio
from sysproc_client._core.retry import PATIENCE_S, TIMEOUT_S

# What programs make themselves; all others are given to them.
MADE_BY_PROGRAMS = {"Client", "AsyncClient", "Tls"}
# Defaults that have a name.
CONSTANTS = {"PATIENCE_S": PATIENCE_S, "TIMEOUT_S": TIMEOUT_S}
# What a program gets from these, and imports from nowhere.
REACHED = {
    "sync": {
        "sysproc_client.images": ("Images",),
        "sysproc_client.volumes": ("Volumes",),
        "sysproc_client.volume_mounts": ("Mount",),
        "sysproc_client.volume_checks": ("Checked",),
        "sysproc_client.volume_transfers": ("Readable",),
        "sysproc_client.process": ("Stdin", "Output"),
        "sysproc_client.ending": ("Ending",),
    },
    "async": {
        "sysproc_client.aio.images": ("AsyncImages",),
        "sysproc_client.aio.volumes": ("AsyncVolumes",),
        "sysproc_client.aio.made": ("Made",),
        "sysproc_client.aio.process": ("AsyncStdin", "AsyncOutput"),
        "sysproc_client.aio.ending": ("AsyncEnding",),
    },
}
# But for what is Python's.
INHERITED = "   :inherited-members: Thread, Exception, tuple"
ERRORS = tuple(name for name in sysproc_client.__all__ if issubclass(getattr(sysproc_client, name), SysprocError))
TITLES = {
    "sync": ("Client, and what it gives", "Names that are imported are in ``sysproc_client``."),
    "async": (
        "AsyncClient: the same for asyncio",
        "Names that are imported are in ``sysproc_client.aio``; results and errors are those of ``sysproc_client``.",
    ),
    "errors": ("Errors", "All are in ``sysproc_client``; which of them a call raises is said at the call."),
}


def pages() -> dict[str, str]:
    """By name: each page's text."""
    return {name: "\n".join(page(name, classes)) for name, classes in shown().items()}


def shown() -> Mapping[str, Sequence[str]]:
    """The classes of each page, by their full names, in the order of the page."""
    of_package = [name for name in sysproc_client.__all__ if name not in ERRORS]
    return {
        "sync": [*first("Client", of_package, "sysproc_client"), *reached("sync")],
        "async": [*first("AsyncClient", aio.__all__, "sysproc_client.aio"), *reached("async")],
        "errors": [*first("SysprocError", ERRORS, "sysproc_client")],
    }


def first(name: str, names: Sequence[str], module: str) -> Iterator[str]:
    """One, then the others."""
    yield from (f"{module}.{one}" for one in sorted(names, key=lambda one: (one != name, one)))


def reached(which: str) -> Iterator[str]:
    """Full names."""
    yield from (f"{module}.{name}" for module, names in REACHED[which].items() for name in names)


def page(name: str, classes: Sequence[str]) -> Iterator[str]:
    """reStructuredText, of which autodoc makes a page."""
    title, head = TITLES[name]
    yield from (title, "=" * len(title), "", head, "")
    for one in classes:
        short = one.rpartition(".")[2]
        yield from (
            short,
            "-" * len(short),
            "",
            f".. autoclass:: {one}",
            "   :members:",
            "   :inherited-members: Thread, Exception, tuple",
            "",
        )


def as_rst(text: str) -> str:
    """A line of a docstring: code in backticks, errors linked, all else literally."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(f"``{piece}``" if number % 2 else with_links(piece) for number, piece in enumerate(pieces))


def with_links(text: str) -> str:
    """Names of errors linked, nothing else taken for reStructuredText."""
    text = re.sub(r"([*|\\])", r"\\\1", text)
    text = re.sub(r"(?<=\w)_(?!\w)", r"\\_", text).replace("://", "\\://")
    return re.sub(rf"\b({'|'.join(ERRORS)})\b", r":exc:`~sysproc_client.\1`", text)
