"""The site of the documentation: everything that a program can use is in a reference, and described there.

The site itself is built where its tools are installed (`make docs` does that); what it is built of is looked at anyway.
"""

import importlib.util
import inspect
import re
import subprocess
import sys
from collections import Counter
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

import sysproc_client
from docs.site import api, command, pages, sdk
from docs.site.descriptors import files
from sysproc_client import aio
from sysproc_client.cli.examples import EXAMPLES
from tests.lint.sources import ROOT


def undescribed() -> list[str]:
    """What of the API has no words. Value 0 of an enum is what it is when it is not set."""
    found = []
    for file in files():
        methods = [one for several in file.methods.values() for one in several]
        values = [one for several in file.values.values() for one in several if one.of.number]
        fields = [one for several in file.fields.values() for one in several]
        found += [one.name for one in (*file.services, *file.enums) if not one.comment]
        found += [one.name for one in methods if not one.comment]
        found += [one.name for one in values if not one.comment]
        found += [one.name for one in file.messages if not (one.comment or api.used_by(one))]
        found += [one.name for one in fields if not api.comment_of(one)]
    return found


def test_all_of_the_api_is_described() -> None:
    assert undescribed() == []


def test_all_of_the_api_is_in_its_reference_once() -> None:
    text = "\n".join(api.pages().values())
    anchors = Counter(re.findall(r"^\(((?:api|type)-[a-z0-9-]+)\)=$", text, re.MULTILINE))
    assert anchors == Counter(api.target(name) for name in api.names())
    assert set(anchors.values()) == {1}


def test_comments_are_kept_as_they_are_meant() -> None:
    text = api.pages()["process_service"]
    assert "\n- if it was confirmed" in text.replace("  - ", "- ")
    assert "```text\n  client " in text
    assert "[WindowSize](#type-windowsize)" in text


def test_every_command_is_in_its_reference_with_its_examples() -> None:
    text = command.page()
    assert [name for name in EXAMPLES if f"\n## sysproc {name}\n" not in text] == []
    assert [line for lines in EXAMPLES.values() for line in lines if f"\n{line}\n" not in text] == []


def test_every_public_name_of_the_sdk_is_in_its_reference() -> None:
    shown = {name for names in sdk.shown().values() for name in names}
    public = {f"sysproc_client.{name}" for name in sysproc_client.__all__}
    assert public | {f"sysproc_client.aio.{name}" for name in aio.__all__} <= shown


def named(name: str) -> type:
    module, _, word = name.rpartition(".")
    kind = getattr(import_module(module), word)
    assert isinstance(kind, type)
    return kind


def members(name: str) -> list[str]:
    """The public methods and properties of a class that are ours; of which there are no words."""
    kind = named(name)
    ours = {
        one: value
        for base in kind.__mro__
        if base.__module__.startswith("sysproc")
        for one, value in vars(base).items()
    }
    public = [
        one
        for one, value in ours.items()
        if not one.startswith("_") and (callable(value) or isinstance(value, property))
    ]
    return [f"{name}.{one}" for one in public if not inspect.getdoc(getattr(kind, one))]


def test_every_public_name_of_the_sdk_is_described() -> None:
    shown = [name for names in sdk.shown().values() for name in names]
    assert [one for name in shown for one in members(name)] == []


def attributes(name: str) -> list[str]:
    """The public attributes that a class of ours sets when it is made; autodoc has words for them from a `#:` above."""
    bases = [base for base in named(name).__mro__ if "__init__" in vars(base)]
    sources = [inspect.getsource(vars(base)["__init__"]) for base in bases if base.__module__.startswith("sysproc")]
    lines = [line.strip() for source in sources for line in ("", *source.splitlines())]
    return [line for above, line in pairwise(lines) if re.match(r"self\.[a-z]", line) and not above.startswith("#: ")]


def test_every_public_attribute_of_the_sdk_is_described() -> None:
    shown = [name for names in sdk.shown().values() for name in names]
    assert [(name, line) for name in shown if not is_dataclass(named(name)) for line in attributes(name)] == []


def test_docstrings_are_taken_literally() -> None:
    assert sdk.as_rst("`a*` or *b_ | tcp://c: Raises NotFound.") == (
        r"``a*`` or \*b\_ \| tcp\://c: Raises :exc:`~sysproc_client.NotFound`."
    )


@pytest.mark.parametrize(
    ("link", "name", "there"),
    [
        ("docs/VSF.md", "README.md", "VSF.md"),
        ("../README.md", "docs/index.md", "tour.md"),
        ("../../README.md", "clients/python/README.md", "../tour.md"),
        ("proto/nightos/sysproc/v1", "README.md", "api/index.md"),
    ],
)
def test_links_lead_where_pages_are_on_the_site(link: str, name: str, there: str) -> None:
    assert pages.moved(f"[words]({link}#part)", name) == f"[words]({there}#part)"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if importlib.util.find_spec("furo") is None:
        pytest.skip("the tools of the documentation are not installed: `make docs` installs them")
    code = (
        "import sys, pathlib; from docs.site.__main__ import build; sys.exit(build(*map(pathlib.Path, sys.argv[1:])))"
    )
    call = [sys.executable, "-c", code, str(tmp_path / "pages"), str(tmp_path / "site")]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    html = {file: file.read_text() for file in (tmp_path / "site").rglob("*.html")}
    loads = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*""")
    assert [(file.name, found) for file, text in html.items() for found in loads.findall(text)] == []
    names = {name for names in sdk.shown().values() for name in names}
    text = "".join(html.values())
    assert [name for name in names if f'id="{name}"' not in text] == []
    assert [name for name in api.names() if f'id="{api.target(name)}"' not in text] == []
