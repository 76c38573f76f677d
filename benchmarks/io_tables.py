"""The tables of I/O: what stands beside what, and the ratios; for the terminal and for the page alike.

A column or a table that a run has no figure for is not there. What is measured is in `benchmarks.volume_io`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.volume_io import PLACES, TITLE, Io


@dataclass(frozen=True)
class IoTable:
    """Of these places. ratios: of the first to the second, by what they are called."""

    title: str
    places: Sequence[str]
    ratios: Mapping[str, tuple[str, str]]

    def is_in(self, found: Sequence[Io]) -> bool:
        """Whether there is anything to compare."""
        return any(one.of(place) is not None for one in found for place, _ in self.ratios.values())

    def columns(self, found: Sequence[Io]) -> Sequence[str]:
        """Their heads."""
        return "job", *(PLACES[place] for place in self.shown(found)), *self.ratios

    def rows(self, found: Sequence[Io]) -> Iterator[Sequence[str]]:
        """A job each."""
        for one in found:
            figures = (amount(one.of(place), one.unit) for place in self.shown(found))
            yield one.name, *figures, *(ratio(one.of(top), one.of(below)) for top, below in self.ratios.values())

    def shown(self, found: Sequence[Io]) -> Sequence[str]:
        """The places that this run has figures of."""
        return [place for place in self.places if any(one.of(place) is not None for one in found)]


PLAIN = IoTable(TITLE, ("volume", "host", "loop", "nspawn", "podman"), {"volume to host": ("volume", "host")})
DIRECT_IO = IoTable(
    "A volume that is mounted with --direct-io",
    ("volume", "direct_io", "host"),
    {"with to without": ("direct_io", "volume"), "with to host": ("direct_io", "host")},
)
ENCRYPTED = IoTable(
    "An encrypted volume",
    ("volume", "encrypted", "encrypted_direct_io", "host"),
    {"encrypted to plain": ("encrypted", "volume")},
)


def amount(figure: float | None, unit: str) -> str:
    """Nothing, where nothing was measured."""
    return "" if figure is None else f"{figure:.0f} {unit}"


def ratio(top: float | None, below: float | None) -> str:
    """Of two, where both were measured."""
    return "" if top is None or not below else f"{top / below:.2f}"
