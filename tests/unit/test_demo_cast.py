"""The recording at the top of README shows the demo as it is now: docs/demo.cast and docs/demo.svg.

`make cast` records examples/demo.sh anew.
"""

import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from docs.cast import recording

ROOT = Path(__file__).parents[2]
CAST = (ROOT / "docs" / "demo.cast").read_text()
SVG = (ROOT / "docs" / "demo.svg").read_text()
KIB = 1024


def printed() -> list[str]:
    """The lines that the terminal has got, without their looks."""
    text = "".join(data for _, data in recording.of_text(CAST).events)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n").splitlines()


def lines_of_demo(word: str) -> list[str]:
    """What it says, or tries, in order."""
    words = [
        shlex.split(line) for line in (ROOT / "examples" / "demo.sh").read_text().splitlines() if line[:4] == f"{word} "
    ]
    return [argument for _, argument in words]


@pytest.mark.parametrize(("word", "prompt"), [("try", "$ "), ("say", "# ")])
def test_it_shows_what_the_demo_does_now(word: str, prompt: str) -> None:
    shown = [line.removeprefix(prompt) for line in printed() if line.startswith(prompt)]
    assert shown == lines_of_demo(word), "record it anew: make cast"


def test_it_is_a_cast_of_version_2() -> None:
    header, *events = map(json.loads, CAST.splitlines())
    assert (header["version"], type(header["width"]), type(header["height"])) == (2, int, int)
    assert {(type(at), code, type(data)) for at, code, data in events} <= {(float, "o", str), (int, "o", str)}
    times = [at for at, _, _ in events]
    assert times == sorted(times)
    assert max(after - before for before, after in pairwise(times)) <= recording.LONGEST_PAUSE_S + 0.01


def test_it_is_read_as_it_was_written() -> None:
    assert recording.of_text(CAST).as_text() == CAST


def test_the_picture_is_of_the_same() -> None:
    texts = [element.itertext() for element in ElementTree.fromstring(SVG).iter("{http://www.w3.org/2000/svg}text")]
    drawn = {"".join(text).rstrip() for text in texts}
    assert {line.rstrip() for line in printed() if line.strip()} <= drawn
    assert len(SVG) < 300 * KIB
    assert "http" not in SVG.replace("http://www.w3.org/2000/svg", "")


def test_long_pauses_are_shown_as_shorter_ones() -> None:
    events = [(1.0, "a"), (11.0, "b"), (11.5, "c")]
    assert [*recording.shortened(iter(events))] == [(1.0, "a"), (2.5, "b"), (3.0, "c")]


def test_what_is_written_is_recorded_with_the_end() -> None:
    cast, status = recording.record(["sh", "-c", "stty size; exit 3"], title="x")
    assert "".join(text for _, text in cast.events) == f"{recording.ROWS} {recording.COLUMNS}\r\n"
    assert status == 3


def test_a_line_is_drawn_from_when_it_was_there() -> None:
    pytest.importorskip("pyte", reason="the tools of the documentation are not installed: `make docs` installs them")
    from docs.cast.drawing import drawn

    picture = drawn(
        recording.Cast("x", ((1.0, "one\r\n"), (2.0, "two"), (4.0, "\r\x1b[1;31mTWO\r\n")), columns=9, rows=9)
    )
    root = ElementTree.fromstring(picture)
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == ["two", "one", "TWO"]
    assert '<tspan class="red b">TWO</tspan>' in picture
    assert "@keyframes k0{0%{visibility:hidden}20.00%{visibility:visible}40.00%{visibility:hidden}}" in picture
