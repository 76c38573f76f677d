"""Bars in SVG: the times of contenders, and the ratios of I/O, of one kept run. What is said of them is the page's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from benchmarks.measure import Timing
from benchmarks.results import Results

WIDTH, ROW, BAR, LABELS, FIGURES, MARGIN = 720, 22, 14, 250, 90, 16
OURS, THEIRS, INK = "#2563eb", "#94a3b8", "#334155"
TIMED = ("one-shot /bin/true", "exec /bin/true", "create, destroy", "making volumes", "mounting volumes")


@dataclass(frozen=True)
class Bar:
    """One row: its label, how long it is of the longest in its group, what is written at its end."""

    label: str
    length: float
    figure: str
    is_ours: bool


def of_times(timings: Sequence[Timing]) -> Iterator[Bar]:
    """Of one benchmark. Where peers stand beside us, ours is the one that is named sysproc."""
    longest = max(one.median_ms for one in timings)
    alone = "sysproc" not in {one.contender for one in timings}
    for one in timings:
        ours = alone or one.contender == "sysproc"
        yield Bar(one.contender, one.median_ms / longest, f"{one.median_ms:.1f} ms", ours)


def of_io(results: Results) -> Iterator[Bar]:
    """What a volume does, for each 1 of the host's disk."""
    longest = max(one.ratio for one in results.io)
    for one in results.io:
        yield Bar(one.name, one.ratio / longest, f"{one.ratio:.2f}", True)


def groups(results: Results) -> Iterator[tuple[str, Sequence[Bar]]]:
    """Each with its title."""
    for title in TIMED:
        if title in results.timings:
            yield f"{title} (p50)", list(of_times(results.timings[title]))
    if results.io:
        yield "I/O on a volume, the host's disk being 1", list(of_io(results))


def drawing(results: Results) -> str:
    """The picture, on a ground of its own: pages are light or dark."""
    found = list(groups(results))
    height = MARGIN * 2 + sum((len(bars) + 2) * ROW for _, bars in found)
    box = f"0 0 {WIDTH} {height}"
    svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=box, width=str(WIDTH))
    svg.set("font-family", "system-ui, sans-serif")
    svg.set("font-size", "13")
    ElementTree.SubElement(svg, "title").text = "Times and ratios of sysproc and its peers"
    ElementTree.SubElement(svg, "rect", width=str(WIDTH), height=str(height), fill="#ffffff", rx="8")
    y = MARGIN
    for title, bars in found:
        y = draw_group(svg, title, bars, y)
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def draw_group(svg: ElementTree.Element, title: str, bars: Sequence[Bar], y: int) -> int:
    """Where the next one begins."""
    write(svg, MARGIN, y + BAR, title).set("font-weight", "bold")
    for number, bar in enumerate(bars, start=1):
        draw(svg, bar, y + number * ROW)
    return y + (len(bars) + 2) * ROW


def draw(svg: ElementTree.Element, bar: Bar, y: int) -> None:
    """One row."""
    write(svg, LABELS, y + BAR - 2, bar.label).set("text-anchor", "end")
    length = max(bar.length * (WIDTH - LABELS - FIGURES - MARGIN), 1)
    colour = OURS if bar.is_ours else THEIRS
    place = {"x": str(LABELS + 8), "y": str(y), "width": f"{length:.1f}", "height": str(BAR)}
    ElementTree.SubElement(svg, "rect", {**place, "rx": "2", "fill": colour})
    write(svg, LABELS + 16 + length, y + BAR - 2, bar.figure)


def write(svg: ElementTree.Element, x: float, y: float, words: str) -> ElementTree.Element:
    """A line of text."""
    text = ElementTree.SubElement(svg, "text", x=f"{x:.1f}", y=f"{y:.1f}", fill=INK)
    text.text = words
    return text
