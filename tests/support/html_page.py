"""A page of HTML, as tests ask about it."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """What the tests ask about a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.text = text
        self.svgs = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all_of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def section(self, anchor: str) -> str:
        found = re.search(rf'<section id="{anchor}".*?</section>', self.text, flags=re.DOTALL)
        assert found is not None, anchor
        return found[0]
