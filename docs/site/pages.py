"""The source of the site: the pages of docs/, README and others under names of the site, and what is generated.

Links lead from one page to another as they do in the repository; here they are given the names that pages have on the
site. What Sphinx is told is in `docs/site/conf.py`.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from docs.site import api, command, sdk

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Files elsewhere that are pages: their name on the site.
ELSEWHERE = {"README.md": "tour.md", "CHANGELOG.md": "changelog.md", "clients/python/README.md": "sdk/index.md"}
# Sources of what has a page here that is generated.
INSTEAD = {"proto/nightos/sysproc/v1": "api/index.md", "clients/python/src/sysproc_client/cli": "command.md"}
# Files of docs/ that pages show or offer.
BESIDE = ("*.cast", "*.json", "*.png", "*.svg")


def write(directory: Path) -> None:
    """Write all of them into a directory, which is made anew."""
    shutil.rmtree(directory, ignore_errors=True)
    for folder in ("api", "sdk"):
        (directory / folder).mkdir(parents=True)
    for pattern in BESIDE:
        for file in DOCS.glob(pattern):
            shutil.copy(file, directory)
    for name, text in texts().items():
        (directory / name).write_text(text)


def texts() -> dict[str, str]:
    """Every page by its name on the site."""
    own = {file.name: moved(file.read_text(), f"docs/{file.name}") for file in sorted(DOCS.glob("*.md"))}
    others = {page: moved((ROOT / name).read_text(), name) for name, page in ELSEWHERE.items()}
    found = {
        **own,
        **others,
        "command.md": command.page(),
        **{f"api/{name}.md": text for name, text in api.pages().items()},
        **{f"sdk/{name}.rst": text for name, text in sdk.pages().items()},
    }
    found["index.md"] += "\n".join(["", *toctrees(found["index.md"])])
    found["sdk/index.md"] += "\n```{toctree}\n:hidden:\nsync\nasync\nerrors\n```\n"
    return found


def toctrees(index: str) -> Iterator[str]:
    """For the site's menu: what index.md links to, by its headings."""
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        links = re.findall(r"^- \[([^]]*)\]\(([^)#]+?)(?:\.md)?\)", part, re.MULTILINE)
        entries = (f"{title} <{link}>" for title, link in links)
        yield from ("```{toctree}", ":hidden:", f":caption: {part.splitlines()[0]}", *entries, "```", "")


def moved(text: str, name: str) -> str:
    """A page's text with its links as the site has them."""
    return re.sub(r"(?<=\]\()(?!https?:|#)([^)#]+)", lambda link: on_the_site(link[1], name), text)


def on_the_site(link: str, name: str) -> str:
    """Where a link of a file of the repository leads on the site, seen from its page."""
    target = (ROOT / name).parent.joinpath(link).resolve().relative_to(ROOT).as_posix()
    page = INSTEAD.get(target) or ELSEWHERE.get(target) or target.removeprefix("docs/")
    return "../" * ELSEWHERE.get(name, "").count("/") + page
