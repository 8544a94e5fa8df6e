"""The report as one HTML file that needs nothing else: ``page.html.jinja`` filled with the blocks of all sections."""

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from .blocks import Panel, Section
from .records import Results

FOLDER = Path(__file__).parent


def render(title: str, lead: str, sections: Sequence[Section], results: Results) -> str:
    """The whole file. lead: a paragraph above the table of contents."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"inline": inline, "svg": svg}
    template = environment.get_template("page.html.jinja")
    css = Markup((FOLDER / "style.css").read_text(encoding="utf-8"))
    return template.render(
        title=title, lead=lead, css=css, sections=[(section, section.blocks(results)) for section in sections]
    )


def inline(text: str) -> Markup:
    """Escaped text in which `words between backquotes` are code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def svg(panel: Panel) -> Markup:
    """The drawing of a panel as an <svg> that also says in words what it shows."""
    drawn = panel.draw()
    start = drawn.index("<svg") + len("<svg")
    return Markup(f'{drawn[:start]} role="img" aria-label="{escape(panel.alt)}"{drawn[start:]}')
