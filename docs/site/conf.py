"""What Sphinx is told of the site. Read by Sphinx only; the pages come from `docs.site.pages`.

Sphinx and not MkDocs, since it reads docstrings and checks every link by itself; MyST, so that the pages are plain
Markdown in the repository; furo, whose pages load nothing from elsewhere.
"""

import re
from dataclasses import is_dataclass

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

from docs.site.api import target
from docs.site.sdk import CONSTANTS, MADE_BY_PROGRAMS, as_rst
from sysproc_client.version import VERSION

project = "sysproc"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
exclude_patterns = [".doctrees"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_title = f"sysproc {VERSION}"
html_copy_source = False
html_show_sphinx = html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
# Types of the standard library and of generated code have no page here.
nitpick_ignore_regex = [("py:.*", r"(?!sysproc_client\.).*"), ("py:.*", r"sysproc_client\._core\..*")]


def in_plain_words(*event: object) -> None:
    """Docstrings are plain text with code in backticks."""
    lines = event[-1]
    assert isinstance(lines, list)
    lines[:] = [as_rst(line) for line in lines]


def signature(app: Sphinx, what: str, name: str, of: object, options: object, *texts: str) -> tuple[str, str] | None:
    """Of classes that programs are given, and do not make, none; constants by their values."""
    if what == "class" and name.rpartition(".")[2] not in MADE_BY_PROGRAMS and not is_dataclass(of):
        return ("", "")
    shown, returned = texts
    for constant, value in CONSTANTS.items():
        shown = shown and shown.replace(f"= {constant}", f"= {value:g}")
    return shown, returned


def to_the_api(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: nodes.Element) -> nodes.Element | None:
    """Messages of the API are described on its own pages."""
    message = re.fullmatch(r"nightos\.sysproc\.v1\.\w+_pb2\.(\w+)", node.get("reftarget", ""))
    place = env.domains.standard_domain.anonlabels.get(target(message[1])) if message else None
    return place and make_refnode(app.builder, node["refdoc"], *place, shown)


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", in_plain_words)
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", to_the_api)
