"""What was built: every link, image and anchor inside the book exists, and nothing is elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGEST = 3_000_000
"""Bytes that no page may reach."""
LOADING = {
    "img": ("src", "srcset"),
    "script": ("src",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
"""For each element, the attributes whose address a browser fetches by itself."""
TOKENS = {"s", "pad", "unk", "sos", "eos"}
"""What would be elements if a page had these tokens as text outside of code."""
QUIET_RELATIONS = {"canonical", "next", "prev", "search", "index", "author", "license", "up"}
"""Relations of `link` that are not fetched."""


@dataclass
class Page(HTMLParser):
    """A page's anchors, the addresses it links to, and those it loads."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()
        self.inside = ""
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element is called, links to and loads."""
        values = {name: value or "" for name, value in attrs}
        self.inside = tag
        self.tokens += [tag] if tag in TOKENS else []
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.loads += in_style(values.get("style", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" and not QUIET_RELATIONS & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        for name in LOADING.get(tag, ()):
            if name in values:
                parts = values[name].split(",") if name == "srcset" else [values[name]]
                self.loads += [part.split()[0] for part in parts if part.strip()]

    def handle_data(self, data: str) -> None:
        """Note what a style sheet inside the page loads."""
        if self.inside == "style":
            self.loads += in_style(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        self.inside = ""


def in_style(css: str) -> list[str]:
    """Return the addresses that a style sheet loads."""
    css = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    found = re.findall(r"url\(\s*[\"']?(.*?)[\"']?\s*\)", css)
    return found + re.findall(r"@import\s+[\"'](.*?)[\"']", css)


def is_elsewhere(address: str) -> bool:
    """Return whether an address is on another host."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


class Book:
    """A built book: a folder of HTML."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        paths = sorted(self.folder.rglob("*.html"))
        self.pages = {
            p: Page(p) for p in paths if "_static" not in p.relative_to(self.folder).parts
        }
        self.links = sum(len(page.links) + len(page.loads) for page in self.pages.values())

    def largest_page(self) -> tuple[int, str]:
        """Return the size of the largest page in bytes, and its name."""
        sizes = [(p.stat().st_size, p.relative_to(self.folder).as_posix()) for p in self.pages]
        return max(sizes)

    def mistakes(self) -> list[str]:
        """List what is wrong: one sentence each."""
        return [*self.broken(), *self.elsewhere(), *self.too_large(), *self.lost_tokens()]

    def broken(self) -> Iterator[str]:
        """Yield the links and the resources that lead nowhere."""
        for path, page in self.pages.items():
            for address in dict.fromkeys([*page.links, *page.loads]):
                if urlsplit(address).scheme or is_elsewhere(address):
                    continue
                problem = self.problem(path, address)
                if problem:
                    yield f"{path.relative_to(self.folder)}: {address} {problem}"
        for path in self.style_sheets:
            for address in in_style(path.read_text(encoding="utf-8")):
                if not urlsplit(address).scheme and not address.startswith("#"):
                    target = path.parent / unquote(urlsplit(address).path)
                    if not target.is_file():
                        yield f"{path.relative_to(self.folder)}: {address} is not there"

    def problem(self, path: Path, address: str) -> str:
        """Return what is wrong with an address inside the book, or nothing."""
        parts = urlsplit(address)
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_relative_to(self.folder):
            return "is outside of the book"
        if target.is_dir() or not target.exists():
            return "is not there"
        page = self.pages.get(target)
        anchor = unquote(parts.fragment)
        return "has no such anchor" if anchor and page and anchor not in page.anchors else ""

    def elsewhere(self) -> Iterator[str]:
        """Yield what a browser would fetch from another host."""
        for path, page in self.pages.items():
            for address in filter(is_elsewhere, page.loads):
                yield f"{path.relative_to(self.folder)}: loads {address}"
        for path in self.style_sheets:
            for address in filter(is_elsewhere, in_style(path.read_text(encoding="utf-8"))):
                yield f"{path.relative_to(self.folder)}: loads {address}"

    def too_large(self) -> Iterator[str]:
        """Yield the pages of 3 MB and more."""
        for path in self.pages:
            if path.stat().st_size >= LARGEST:
                yield f"{path.relative_to(self.folder)} has {path.stat().st_size:,} bytes"

    def lost_tokens(self) -> Iterator[str]:
        """Yield the pages on which a token such as <s> became an element."""
        for path, page in self.pages.items():
            for token in page.tokens:
                yield f"{path.relative_to(self.folder)}: <{token}> is HTML; put it in backquotes"

    @cached_property
    def style_sheets(self) -> list[Path]:
        """The style sheets."""
        return sorted(self.folder.rglob("*.css"))
