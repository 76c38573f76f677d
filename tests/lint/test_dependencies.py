"""Each distribution declares what it imports, and imports what it declares.

The declarations are in the two pyproject.toml; this test is what keeps `pip install` of one of them enough.
"""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement

from sysproc_client.version import VERSION
from tests.lint.sources import ROOT, below

# What a distribution needs without importing it: click's terminal tables and the like would stand here.
NOT_IMPORTED: frozenset[str] = frozenset({"sysproc-client"})

FOR_DEVELOPERS = frozenset({"test", "dev", "docs"})

# Packages that several distributions share; the stubs import googleapis' and protobuf's parts of `google`.
SHARED = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "google.api": "googleapis-common-protos",
    "nightos.sysproc": "sysproc-client",
}


def declared(project: str) -> set[str]:
    """The names in a project's `dependencies`, and in the extras that users choose."""
    data = tomllib.loads((ROOT / project / "pyproject.toml").read_text())["project"]
    extras = [items for name, items in data.get("optional-dependencies", {}).items() if name not in FOR_DEVELOPERS]
    lists = [data["dependencies"], *extras]
    return {re.split(r"[<>=~!\[; ]", item)[0].lower() for items in lists for item in items}


def provider(module: str, providers: dict[str, list[str]]) -> str | None:
    """The distribution that has a module; None for the standard library and for the tree itself."""
    top = module.split(".", maxsplit=1)[0]
    if top in sys.stdlib_module_names or top == "sysproc":
        return None
    for prefix, name in SHARED.items():
        if module.startswith(prefix):
            return name
    return providers.get(top, [top])[0].lower().replace("_", "-")


@pytest.mark.parametrize(
    ("project", "tree", "by_stubs"),
    [
        (".", "sysproc", {"protobuf"}),
        ("clients/python", "clients/python/src", {"protobuf", "googleapis-common-protos", "sysproc-client"}),
    ],
)
def test_what_is_imported_is_declared_and_the_other_way_round(project: str, tree: str, by_stubs: set[str]) -> None:
    providers = {top: list(names) for top, names in packages_distributions().items()}
    modules = {name for source in below(tree) for name in source.imports()}
    imported = {name for module in modules if (name := provider(module, providers)) is not None}
    own = {"sysproc-client"} if project == "clients/python" else set()
    assert imported - own - declared(project) == set()
    assert declared(project) - imported - by_stubs - NOT_IMPORTED == set()


def test_the_client_of_this_tree_is_one_that_the_server_takes() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = next(one for one in map(Requirement, dependencies) if one.name == "sysproc-client")
    assert wanted.specifier.contains(VERSION, prereleases=True)
