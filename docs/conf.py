"""Of the site that `make docs` builds: the pages of this folder as they are, and the README beside them."""

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

project = "unmask"
author = "The unmask authors"
release = version_of("unmask")
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = "unmask"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
myst_heading_anchors = 3
# Blocks without a language are commands and their output.
highlight_language = "none"
DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"


def _links(text: str, folder: Path, page: Path) -> str:
    """A page's text with links that this site can follow, of a file in `folder` shown as the page `page`.

    The README is the page `overview`, the list of pages the first one. What is no page of this site is named, not linked.
    """
    places = {README: DOCS / "overview.md", DOCS / "README.md": DOCS / "index.md", DOCS: DOCS / "index.md"}

    def link(found: re.Match[str]) -> str:
        image, label, target, anchor = found.groups(default="")
        path = (folder / target).resolve()
        path = places.get(path, path)
        if image and path.is_relative_to(DOCS):
            return f"![{label}]({os.path.relpath(path, page.parent)})"
        if path.suffix != ".md" or not path.is_relative_to(DOCS):
            return label.removeprefix("../")
        # A page that is called by its file's name is called by its title.
        label = "" if label.rstrip("/") == target.rstrip("/") else label
        return f"[{label}]({os.path.relpath(path, page.parent)}{anchor})"

    return re.sub(r"(!?)\[([^]]*)\]\(([^)#:]+)(#[^)]*)?\)", link, text)


def _page(app: Any, name: str, source: list[str]) -> None:
    path = DOCS / f"{name}.md"
    source[0] = _links(source[0], path.parent, path)


def _included(app: Any, path: Path, name: str, source: list[str]) -> None:
    source[0] = _links(source[0], (DOCS / path).resolve().parent, DOCS / f"{name}.md")


def setup(app: Any) -> None:
    """Sphinx's hook."""
    app.connect("source-read", _page)
    app.connect("include-read", _included)
