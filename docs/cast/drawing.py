"""A recording as an animated picture: SVG with keyframes of CSS, no script, nothing from elsewhere.

The whole of what was written is laid out as one tall page by a terminal emulator (pyte); each line is shown from when
it was there, and the page moves up as a terminal scrolls. So a line is in the file once. Where nothing moves (a
printer, reduced motion), the last screen is shown. Programs that move about on the screen are not what this is for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby

import pyte
from pyte.screens import Char

from docs.cast.recording import Cast

# How long the end is shown before it begins again.
END_S = 6.0
WIDTH, HEIGHT, SIZE = 8.4, 19.0, 14
MARGIN, BAR = 14, 34
BACKGROUND, FOREGROUND = "#14171f", "#c9d1d9"
COLORS = {
    "black": "#484f58",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
    "white": "#c9d1d9",
    "brightblack": "#8b949e",
}

Line = tuple[Char, ...]


@dataclass(frozen=True)
class Shown:
    """What stands in a row from one time to another; None: to the end."""

    row: int
    line: Line
    since: float
    until: float | None


def drawn(cast: Cast) -> str:
    """The picture."""
    found = [*shown(cast)]
    seconds = cast.events[-1][0] + END_S
    rows = 1 + max(one.row for one in found)
    width, height = cast.columns * WIDTH + 2 * MARGIN, cast.rows * HEIGHT + BAR + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"',
            f'height="{height:g}" role="img" aria-label="{escape(cast.title)}">',
            *("<style>", *style(found, cast.rows, rows, seconds), "</style>"),
            f'<rect width="100%" height="100%" rx="10" fill="{BACKGROUND}"/>',
            *(
                f'<circle cx="{20 + 18 * n}" cy="18" r="6" fill="{color}"/>'
                for n, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            f'<text x="50%" y="22" class="t">{escape(cast.title)}</text>',
            f'<svg y="{BAR}" width="{width:g}" height="{cast.rows * HEIGHT:g}"><g id="page">',
            *(text for one in found for text in line_of(one, found.index(one))),
            "</g></svg></svg>\n",
        ]
    )


def shown(cast: Cast) -> Iterator[Shown]:
    """What each row of the page has had, in the order of time."""
    rows = 2 + sum(text.count("\n") for _, text in cast.events)
    screen = pyte.Screen(cast.columns, rows + sum(len(text) for _, text in cast.events) // cast.columns)
    stream = pyte.Stream(screen)
    now: dict[int, tuple[float, Line]] = {}
    for at, text in cast.events:
        screen.dirty.clear()
        stream.feed(text)
        for row in sorted(screen.dirty):
            line = content(screen, row)
            since, before = now.get(row, (at, ()))
            if line != before:
                if before:
                    yield Shown(row, before, since, at)
                now[row] = (at, line)
    yield from (Shown(row, line, since, None) for row, (since, line) in sorted(now.items()) if line)


def content(screen: pyte.Screen, row: int) -> Line:
    """A row without the blanks at its end."""
    chars = [screen.buffer[row][column] for column in range(screen.columns)]
    while chars and chars[-1].data == " ":
        chars.pop()
    return tuple(chars)


def style(found: list[Shown], visible: int, rows: int, seconds: float) -> Iterator[str]:
    """When which line is seen, and when the page moves."""
    yield f"text{{font:{SIZE}px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    yield f"fill:{FOREGROUND};white-space:pre}} .t{{text-anchor:middle;fill:#8b949e}} .b{{font-weight:bold}}"
    yield from (f".{name}{{fill:{color}}}" for name, color in COLORS.items())
    up = max(0, rows - visible)
    yield f"#page{{transform:translateY({-up * HEIGHT:g}px)}}"
    yield from (f"#l{n}{{visibility:hidden}}" for n, one in enumerate(found) if one.until is not None)
    yield "@media (prefers-reduced-motion:no-preference){"
    yield f"#page{{animation:page {seconds:.2f}s step-end infinite}}"
    yield f"#page text{{animation-duration:{seconds:.2f}s;animation-timing-function:step-end;"
    yield "animation-iteration-count:infinite}"
    yield f"@keyframes page{{{''.join(moves(found, visible, seconds))}}}"
    for number, one in enumerate(found):
        yield f"#l{number}{{animation-name:k{number}}} @keyframes k{number}{{{''.join(times(one, seconds))}}}"
    yield "}"


def moves(found: list[Shown], visible: int, seconds: float) -> Iterator[str]:
    """The page's places: as far up as its lowest line wants."""
    yield "0%{transform:none}"
    lowest = 0
    for at, lines in groupby(sorted(found, key=lambda one: one.since), key=lambda one: one.since):
        low = max(lowest, *(one.row for one in lines))
        if low > lowest and low >= visible:
            yield f"{100 * at / seconds:.2f}%{{transform:translateY({-(low - visible + 1) * HEIGHT:g}px)}}"
        lowest = low


def times(one: Shown, seconds: float) -> Iterator[str]:
    """Hidden, seen, and hidden again if something else came there."""
    yield f"0%{{visibility:hidden}}{100 * one.since / seconds:.2f}%{{visibility:visible}}"
    if one.until is not None:
        yield f"{100 * one.until / seconds:.2f}%{{visibility:hidden}}"


def line_of(one: Shown, number: int) -> Iterator[str]:
    """A line: its runs of one look each."""
    y = one.row * HEIGHT + SIZE
    spans = "".join(span("".join(char.data for char in run), look) for look, run in groupby(one.line, key=look_of))
    yield f'<text id="l{number}" x="{MARGIN}" y="{y:g}">{spans}</text>'


def look_of(char: Char) -> str:
    """The classes of a character."""
    return " ".join(name for name in (char.fg if char.fg in COLORS else "", "b" if char.bold else "") if name)


def span(text: str, look: str) -> str:
    """A run of one look."""
    return f'<tspan class="{look}">{escape(text)}</tspan>' if look else escape(text)
