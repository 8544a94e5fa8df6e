"""The page as HTML: escaped text, tables with headers and units, figures with captions, all in one file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from . import words
from .records import COMMANDS, Record, origin

CSS = Path(__file__).with_name("style.css")


@dataclass(frozen=True)
class Section:
    """One question and its answer. body: pieces of HTML, made by the functions below."""

    anchor: str
    title: str
    body: tuple[str, ...]


def paragraph(plain: str, kind: str = "") -> str:
    """Plain text; `words between backquotes` are code."""
    parts = escape(plain).split("`")
    told = "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
    return f'<p class="{kind}">{told}</p>' if kind else f"<p>{told}</p>"


def text(plain: str) -> str:
    """Escaped, for a heading."""
    return escape(plain)


def warning(told: str) -> str:
    return paragraph(told, "warning")


def missing(*names: str) -> str:
    """What stands where records are missing: the commands that make them."""
    told = " and ".join(f"<code>{escape(COMMANDS[name])}</code>" for name in names)
    return f'<p class="missing">No records yet. {told} makes them; then run <code>make report</code> again.</p>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str) -> str:
    """Columns of figures are set to the right. A cell that starts with '*' is emphasised."""
    cells = [[str(cell) for cell in row] for row in rows]
    sides = [_side([row[i] for row in cells]) for i in range(len(header))]
    head = "".join(f'<th scope="col"{side}>{escape(name)}</th>' for name, side in zip(header, sides, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell(*one) for one in zip(range(len(row)), row, sides, strict=True))}</tr>" for row in cells
    )
    told = f"<caption><span>{escape(caption)}</span></caption>"
    return f'<div class="wide"><table>{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _side(column: Sequence[str]) -> str:
    """Figures start with a digit or a sign, or are not available; words may be missing."""
    filled = [text.removeprefix("*") for text in column if text]
    return ' class="n"' if filled and all(t[0].isdigit() or t[0] in "-+" or t == words.NA for t in filled) else ""


def _cell(column: int, text: str, side: str) -> str:
    strong, text = text.startswith("*"), text.removeprefix("*")
    inner = f"<strong>{escape(text)}</strong>" if strong else escape(text)
    return f'<th scope="row">{inner}</th>' if column == 0 else f"<td{side}>{inner}</td>"


def figure(
    panels: Sequence[tuple[str, str]], *, caption: str, records: Sequence[Record], layout: str = "three", na: str = ""
) -> str:
    """Panels under one caption, which ends with the command, the threads and what is not available.

    panels: (alternative text, svg). layout: "three" or "two" panels beside each other where there is room, or "one".
    na: what is left out and why; said to be nothing where it is empty.
    """
    drawn = "".join(_panel(alt, svg) for alt, svg in panels)
    names = dict.fromkeys(str(r.get("eval", "")) for r in records)
    commands = " and ".join(f"<code>{escape(COMMANDS[name])}</code>" for name in names if name in COMMANDS)
    threads = ", ".join(origin(records).threads) or words.NA
    tail = f"Command: {commands}. Threads: {escape(threads)}. Not available: {escape(na or 'nothing')}."
    told = f'{escape(caption)} <span class="made">{tail}</span>'
    return f'<figure><div class="panels {layout}">{drawn}</div><figcaption>{told}</figcaption></figure>'


def _panel(alt: str, svg: str) -> str:
    """An <svg> that says what it shows, and whose parts have names of their own on this page."""
    start = svg.index("<svg") + len("<svg")
    return f'<div class="panel">{svg[:start]} role="img" aria-label="{escape(alt)}"{svg[start:]}</div>'


def cards(items: Iterable[tuple[str, str]]) -> str:
    """Large numbers and what they are."""
    told = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>" for value, what in items)
    return f'<dl class="cards">{told}</dl>'


def details(summary: str, inner: str) -> str:
    """Something that most readers skip."""
    return f"<details><summary>{escape(summary)}</summary>{inner}</details>"


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole file. lead: pieces of HTML above the table of contents."""
    contents = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    bodies = "".join(
        f'<section id="{s.anchor}" aria-labelledby="{s.anchor}-title"><h2 id="{s.anchor}-title">{escape(s.title)}</h2>'
        f"{''.join(s.body)}</section>\n"
        for s in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{CSS.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f"<header>{''.join(lead)}</header>\n"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n<main>\n{bodies}</main>\n</body>\n</html>\n'
    )
