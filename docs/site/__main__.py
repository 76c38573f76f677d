"""`python -m docs.site DIRECTORY`: the documentation as a site, for a browser, without anything from elsewhere.

A link that leads nowhere is an error, as is every other warning. What it is made of stays in build/docs.
"""

import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from docs.site import pages


def build(source: Path, out: Path) -> int:
    """Write the pages into a directory, and the site of them into another; 0 if nothing was wrong."""
    pages.write(source)
    strict = ("-W", "--keep-going", "-n", "-q", "-E")
    own = ("-c", str(Path(__file__).parent), "-d", str(source / ".doctrees"))
    return int(sphinx([*strict, *own, str(source), str(out)]))


if __name__ == "__main__":
    status = build(pages.ROOT / "build" / "docs", Path(sys.argv[1]))
    print(f"{sys.argv[1]}/index.html" if status == 0 else "the site has faults: see above", file=sys.stderr)
    sys.exit(status)
