"""What is said where command and service do not fit together, or a library is missing: only what can be done."""

import sys

import pytest

from sysproc_client import FailedPrecondition
from sysproc_client.cli.output import yaml_of
from sysproc_client.cli.versions import mismatch


@pytest.mark.parametrize(("ours", "theirs"), [("0.1.0", "0.1.7"), ("1.2.0", "1.9.0"), ("1.2", "1.0.3")])
def test_versions_that_fit_are_not_mentioned(ours: str, theirs: str) -> None:
    assert mismatch(ours, theirs) == ""


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [("0.1.0", "0.2.0", "Upgrade the command: install"), ("0.3.0", "0.2.0", "restart sysprocd, which touches no")],
)
def test_the_files_of_the_services_version_are_named(ours: str, theirs: str, words: str) -> None:
    """They are in no index: pip would not find them by their names."""
    said = mismatch(ours, theirs)
    assert words in said and f"sysproc_client-{theirs}-py3-none-any.whl or sysproc_{theirs}-1_*.deb" in said
    assert "pip install" not in said


def test_without_the_library_of_yaml_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(FailedPrecondition, match="pyyaml") as refused:
        yaml_of([])
    assert "pip install pyyaml;" in refused.value.resolution
