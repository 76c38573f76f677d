"""Comments of the API's files as Markdown: paragraphs, lists and drawings kept, names of the API linked.

Where a comment stands, and what it is about, is in `docs.site.descriptors`.
"""

import re
from collections.abc import Callable, Iterator

# What backticks hold is taken as it is.
_CODE = re.compile(r"(`[^`]+`)")
# Names that are no words: two capitals at least, or those of enum values.
_NAME = re.compile(r"\b(?:[A-Z][a-z]+(?:[A-Z][a-z0-9]*)+|[A-Z]+(?:_[A-Z0-9]+)+)\b")
_PAGE = re.compile(r"\bdocs/([A-Z_]+\.md)")


def as_markdown(comment: str, link: Callable[[str], str | None]) -> str:
    """A comment; link: where a name of the API is described, None if it is none."""
    blocks = comment.removesuffix("\n").split("\n\n")
    return "\n\n".join(block for text in blocks for block in rendered(text.splitlines(), link))


def rendered(lines: list[str], link: Callable[[str], str | None]) -> Iterator[str]:
    """One block of lines, as the paragraphs, lists and drawings that it is of."""
    lines = [line.removeprefix(" ") for line in lines]
    if all(line.startswith("  ") or not line.strip() for line in lines) and any(line.strip() for line in lines):
        yield "\n".join(["```text", *lines, "```"])
        return
    text = "\n".join(lines)
    for part in re.split(r"(?:^|(?<=\. )|(?<=\.\n))(?=Errors(?:: | as ))", text):
        if part.strip():
            yield inline(part.strip(), link)


def inline(text: str, link: Callable[[str], str | None]) -> str:
    """Names linked, and nothing taken for Markdown but what is in backticks."""
    pieces = _CODE.split(text)
    return "".join(piece if number % 2 else linked(escaped(piece), link) for number, piece in enumerate(pieces))


def escaped(text: str) -> str:
    """As Markdown takes it literally."""
    return re.sub(r"([*<>\[\]{}~#|\\])", r"\\\1", text)


def linked(text: str, link: Callable[[str], str | None]) -> str:
    """With a link at each name of the API, and at each page of docs/."""

    def at_name(found: re.Match[str]) -> str:
        target = link(found[0])
        return f"[{found[0]}](#{target})" if target else found[0]

    return _PAGE.sub(r"[\1](../\1)", _NAME.sub(at_name, text))
