"""What a section is made of, as data: ``page`` turns it into HTML, ``measurements`` into Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from . import words
from .records import COMMANDS, Record, Results, commands_of, origin


@dataclass(frozen=True)
class Paragraph:
    """Plain text; `words between backquotes` are code. ``style``: "" or "warning"."""

    text: str
    style: str = ""
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Missing:
    """The place of an evaluation without records."""

    names: tuple[str, ...]
    kind: ClassVar[str] = "missing"

    @property
    def commands(self) -> list[str]:
        """The commands that make the records."""
        return [COMMANDS[name] for name in self.names]


@dataclass(frozen=True)
class Cards:
    """Large numbers: (value, what it measures)."""

    items: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Cell:
    """One cell of a table. ``number``: set to the right."""

    text: str
    strong: bool
    number: bool


@dataclass(frozen=True)
class Table:
    """Columns of figures are set to the right. A cell that starts with '*' is emphasised.

    Args:
        header: one name per column.
        cells: rows of texts.
        caption: says what a row is.
        records: what the figures come from.
    """

    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    caption: str
    records: tuple[Record, ...]
    kind: ClassVar[str] = "table"

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold figures: they start with a digit or a sign, or are not available; words may be missing."""
        return [_numeric([row[i] for row in self.cells]) for i in range(len(self.header))]

    @property
    def rows(self) -> list[list[Cell]]:
        """The cells with the way in which they are set."""
        return [
            [Cell(text.removeprefix("*"), text.startswith("*"), n) for text, n in zip(row, self.numeric, strict=True)]
            for row in self.cells
        ]


def _numeric(column: Sequence[str]) -> bool:
    filled = [text.removeprefix("*") for text in column if text]
    return bool(filled) and all(t[0].isdigit() or t[0] in "-+" or t == words.NA for t in filled)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str, records: Iterable[Record]) -> Table:
    """A table from anything that can be written as text."""
    return Table(tuple(header), tuple(tuple(map(str, row)) for row in rows), caption, tuple(records))


@dataclass(frozen=True)
class Panel:
    """One drawing. ``alt``: the same in words, for readers who cannot see it; ``draw``: makes the SVG."""

    alt: str
    draw: Callable[[], str]


@dataclass(frozen=True)
class Figure:
    """Panels under one caption.

    Args:
        panels: in reading order.
        caption: how to read them.
        records: of the drawing.
        layout: "three" or "two" panels beside each other where there is room, or "one".
        left_out: what is not available, and why; "" if nothing is.
    """

    panels: tuple[Panel, ...]
    caption: str
    records: tuple[Record, ...]
    layout: str = "three"
    left_out: str = ""
    kind: ClassVar[str] = "figure"

    @property
    def commands(self) -> list[str]:
        """The commands that made the records."""
        return commands_of(self.records)

    @property
    def threads(self) -> str:
        """The numbers of threads that were measured with."""
        return ", ".join(origin(self.records).threads) or words.NA


@dataclass(frozen=True)
class Details:
    """Something that most readers of the page skip."""

    summary: str
    inner: tuple[Block, ...]
    kind: ClassVar[str] = "details"


Block = Paragraph | Heading | Missing | Cards | Table | Figure | Details


def as_table(found: Table) -> Details:
    """The figures behind a drawing."""
    return Details("As a table", (found,))


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Args:
        anchor: its address on the page.
        title: the question, or the subject.
        intro: a paragraph; "" for none.
        evaluations: whose records it shows. Those without records are named with their command.
        draw: the answer, from records that may lack some of the evaluations, but not all.
    """

    anchor: str
    title: str
    intro: str
    evaluations: tuple[str, ...]
    draw: Callable[[Results], Sequence[Block]]

    def blocks(self, results: Results) -> list[Block]:
        """Everything between the title and the next section."""
        missing = tuple(name for name in self.evaluations if not results.of(name))
        blocks: list[Block] = [Paragraph(self.intro)] if self.intro else []
        blocks += [Missing(missing)] if missing else []
        return blocks if missing and missing == self.evaluations else [*blocks, *self.draw(results)]


def by_name(records: Sequence[Record], key: str = "group") -> Mapping[str, list[Record]]:
    """Records by one of their fields, in the order met."""
    found: dict[str, list[Record]] = {}
    for r in records:
        found.setdefault(str(r[key]), []).append(r)
    return found


def by_shape(records: Sequence[Record]) -> Mapping[str, list[Record]]:
    """Records of one contender each, by (inputs, hidden units, layers)."""
    found: dict[str, list[Record]] = {}
    for r in records:
        found.setdefault(f"{r['I']}, {r['H']}, {r['L']}", []).append(r)
    return found


def unavailable(records: Sequence[Record]) -> list[str]:
    """'name (reason)' of contenders that did not take part in any of the records."""
    return list(dict.fromkeys(f"{one['name']} ({one['reason']})" for r in records for one in r.get("unavailable", ())))


def contender(record: Record) -> str:
    """The name of a record's contender; ours is emphasised."""
    return f"*{record['contender']}" if record["ours"] else str(record["contender"])
