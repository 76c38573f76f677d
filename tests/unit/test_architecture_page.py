"""docs/ARCHITECTURE.md against the sources: the table of kernel features, and the files that it names."""

import re
from pathlib import Path

from sysproc.isolation.kernel_features import FEATURES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ARCHITECTURE.md").read_text()


def table() -> str:
    """What has to stand between the two marks."""
    rows = [f"| {one.name} | {one.since} | {one.fallback} |" for one in FEATURES]
    return "\n".join(["| feature | since Linux | without it |", "|---|---|---|", *rows])


def test_the_table_of_kernel_features_is_that_of_the_code() -> None:
    assert PAGE.partition("<!-- features -->\n")[2].partition("\n<!-- /features -->")[0] == table()


def test_the_files_that_the_page_names_exist() -> None:
    named = re.findall(r"`([a-z_/]+(?:\.py|\.c|\.toml|/))`", PAGE)
    here = [ROOT, ROOT / "sysproc"]
    assert [name for name in named if not any((top / name).exists() for top in here)] == []
    assert len(named) > 20


def test_it_is_one_page() -> None:
    assert PAGE.count("\n") < 130
