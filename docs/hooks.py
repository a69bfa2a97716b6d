"""Files of the repository that pages link to become part of the site, under `repository/`.

A page in `docs/` links to `../results/table1/full/table1.md`, as one reads it in the repository.  The file is copied
into the site (Markdown becomes a page), and so is what it links to in turn.  A link to a file that does not exist stays
as it is, and the strict build fails.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
WITHIN = "repository"
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")
"""The address of a link or picture, without its anchor."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to, directly or through other Markdown files."""
    waiting = [
        path for file in files.documentation_pages() for path in _linked(file.content_string, f"docs/{file.src_uri}")
    ]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or path.startswith("docs/") or not (ROOT / path).is_file():
            continue
        seen.add(path)
        target = f"{WITHIN}/{path}"
        files.append(File.generated(config, target, abs_src_path=str(ROOT / path), inclusion=InclusionLevel.NOT_IN_NAV))
        if path.endswith(".md"):
            waiting += _linked((ROOT / path).read_text(encoding="utf-8"), path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that lead out of `docs/`, and links from the repository into `docs/`, into links of the site."""
    uri = page.file.src_uri
    of_repository = uri.startswith(f"{WITHIN}/")
    place = uri.removeprefix(f"{WITHIN}/") if of_repository else f"docs/{uri}"

    def moved(match: re.Match[str]) -> str:
        path = _path(match[1], place)
        if path is None:
            return match[1]
        target = path.removeprefix("docs/") if path.startswith("docs/") else f"{WITHIN}/{path}"
        return (
            posixpath.relpath(target, posixpath.dirname(uri) or ".") if files.get_file_from_path(target) else match[1]
        )

    return LINK.sub(moved, markdown)


def _linked(markdown: str, place: str) -> Iterator[str]:
    """Paths from the repository's folder of all that a Markdown file links to."""
    for address in LINK.findall(markdown):
        path = _path(address, place)
        if path is not None:
            yield path


def _path(address: str, place: str) -> str | None:
    """The path of a link from the repository's folder; None for an address on the web."""
    if re.match(r"[a-z]+:", address):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), address))
