"""`python -m docs.cast DIRECTORY`: record the demo, and draw it. `scripts/make-cast` calls it."""

import sys
from pathlib import Path

from docs.cast import drawing, recording

DEMO = Path(__file__).parents[2] / "examples" / "demo.sh"


def main(directory: Path) -> int:
    """Write demo.cast and demo.svg; 1, and neither, where the demo failed."""
    cast, status = recording.record([str(DEMO)], title="sysproc: hierarchical Linux containers")
    if status:
        print("".join(text for _, text in cast.events), f"the demo has ended with {status}", sep="\n", file=sys.stderr)
        return 1
    (directory / "demo.cast").write_text(cast.as_text())
    (directory / "demo.svg").write_text(drawing.drawn(cast))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
