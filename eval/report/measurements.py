"""The measurement pages of the documentation: every table of the report as Markdown, with where its figures come from.

``python -m eval.report --docs docs/pages/measurements`` writes one page per evaluation and an overview. The pages are
committed; a test compares them with what the records give, so nobody edits them by hand.

A page has one main machine, the one with most of its records. Records from other machines follow below a heading of
their own that names the machine: figures of two machines never share a table.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from . import words
from .blocks import Block, Cards, Cell, Details, Heading, Missing, Paragraph, Section, Table
from .records import COMMANDS, Record, Results, commands_of, machine_of, origin
from .sections import section
from .sections.origin import overview

GENERATED = "<!-- Written by `python -m eval.report --docs`; do not edit. -->"


@dataclass(frozen=True)
class Page:
    """One evaluation: the file NAME.md, its title, and the sections of the report that show it."""

    name: str
    title: str
    sections: tuple[Section, ...]


PAGES = (
    Page("frontier", "Quality against time on real models", (section("summary"), section("frontier"))),
    Page("never_slower", "Exact LSTMs against nn.LSTM", (section("never_slower"),)),
    Page("calls", "What a call costs", (section("calls"),)),
    Page("onnx", "Through an ONNX file", (section("onnx"),)),
    Page("graphs", "Compiled models", (section("graphs"),)),
    Page("latency", "Latency with random weights", (section("latency"), section("delta"))),
    Page("linearity", "Time against skipped work", (section("linearity"),)),
    Page("streaming", "Streaming", (section("streaming"),)),
    Page("long_stream", "Streams of ten million steps", (section("long_stream"),)),
    Page("pool", "Pools of streams", (section("pool"),)),
    Page("silero", "Silero VAD beside its own files", (section("silero"),)),
    Page("throughput", "Throughput in batches", (section("throughput"),)),
    Page("bulk", "Many sequences", (section("bulk"),)),
    Page("split_time", "Splitting in time", (section("split_time"),)),
    Page("quality", "The speaker encoder in detail", (section("quality"),)),
    Page("compression", "Compression", (section("compression"), section("taxonomy"))),
    Page("within_budget", "Compression within a budget", (section("within_budget"),)),
    Page("ablation", "Ablation", (section("ablation"),)),
    Page("demo", "The demo", (section("demo"),)),
    Page("savings", "Savings of certified policies", (section("savings"),)),
    Page("validity", "Validity of certificates", (section("validity"),)),
    Page("cost_model", "Predicted and measured time", (section("cost_model"),)),
    Page("audit", "Audits in operation", (section("audit"),)),
    Page("limits", "Limits of each model", (section("limits"),)),
    Page("roofline", "Roofline", (section("roofline"),)),
    Page("scaling", "Scaling with width, depth and length", (section("scaling"),)),
    Page("cores", "One thread against several", (section("cores"),)),
    Page("footprint", "Memory and start-up", (section("footprint"),)),
    Page("embedded", "Exported C", (section("embedded"),)),
    Page("arm_bounds", "64-bit ARM on paper", (section("arm_bounds"),)),
    Page("fuzzing", "Fuzzing", (section("fuzzing"),)),
)


def pages(results: Results) -> dict[str, str]:
    """File name -> content, of the overview and of every page."""
    return {"index.md": _index(results)} | {f"{page.name}.md": _page(page, results) for page in PAGES}


def _index(results: Results) -> str:
    links = "\n".join(f"- [{page.title}]({page.name}.md): `{COMMANDS[page.name]}`" for page in PAGES)
    return "\n\n".join(
        [
            GENERATED,
            "# Measurements",
            *_answers(results),
            "## All pages",
            "Every figure on these pages comes from a record in `eval/results`, which carries its machine, versions, "
            "commit and time. `make report` draws the same records as one HTML page with figures.",
            "Contenders of one race run interleaved in one process, in a new order every round; figures are medians, "
            "ratios are taken round by round. A ratio whose quartiles lie too far apart is n/a.",
            links,
            *_table(overview(results)),
        ]
    ) + "\n"  # fmt: skip


def _answers(results: Results) -> Iterator[str]:
    for block in section("answers").draw(results):
        if not isinstance(block, Missing):
            yield from _markdown(block)


def _page(page: Page, results: Results) -> str:
    machines = _machines(results.of(page.name))
    parts = [GENERATED, f"# {page.title}", f"Command: `{COMMANDS[page.name]}`."]
    if not machines:
        parts += list(_markdown(Missing((page.name,))))
    for place in machines:
        if len(machines) > 1:
            which = "Main machine" if place == machines[0] else "Another machine"
            parts.append(f"## {which}: {_escaped(place)}")
        found = results.only(lambda record, place=place: machine_of(record) == place)  # type: ignore[misc]
        for one in page.sections:
            parts += _section(one, found, level="###" if len(machines) > 1 else "##")
    return "\n\n".join(parts) + "\n"


def _machines(records: Iterable[Record]) -> list[str]:
    """The one with most records first."""
    return [place for place, _ in Counter(map(machine_of, records)).most_common()]


def _section(section: Section, results: Results, level: str) -> list[str]:
    """Title, introduction and blocks; nothing of a section that has no table for these records."""
    blocks = (
        [block for block in section.draw(results) if not isinstance(block, Missing)] if _has(section, results) else []
    )
    body = [text for block in blocks for text in _markdown(block, level + "#")]
    if not any("\n| ---" in text for text in body):
        return []
    return [f"{level} {section.title}", *([section.intro] if section.intro else []), *body]


def _has(section: Section, results: Results) -> bool:
    return not section.evaluations or any(results.of(name) for name in section.evaluations)


def _markdown(block: Block, level: str = "##") -> Iterator[str]:
    """Paragraphs of Markdown. Figures are left to the report: the tables hold their values."""
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Heading):
        yield f"{level} {_escaped(block.text)}"
    elif isinstance(block, Paragraph):
        yield f"**{_escaped(block.text)}**" if block.style else _escaped(block.text)
    elif isinstance(block, Missing):
        yield "No records yet: " + " and ".join(f"`{command}`" for command in block.commands) + "."
    elif isinstance(block, Cards):
        yield "\n".join(f"- **{value}** {_escaped(what)}" for value, what in block.items)
    elif isinstance(block, Details):
        for inner in block.inner:
            yield from _markdown(inner, level)


def _table(one: Table) -> Iterator[str]:
    """The table between its caption and a line that says where its figures come from."""
    yield _escaped(one.caption)
    ruler = ["---:" if number else "---" for number in one.numeric]
    lines = [list(map(_escaped, one.header)), ruler, *([_cell(cell) for cell in row] for row in one.rows)]
    yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if one.records:
        yield _provenance(one.records)


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.strong and text else text


def _provenance(records: Sequence[Record]) -> str:
    found = origin(records)
    commands = ", ".join(f"`{command}`" for command in commands_of(records))
    days = " to ".join(dict.fromkeys(time[:10] for time in (found.first, found.last))) or words.NA
    commits, threads = ", ".join(found.commits), ", ".join(found.threads)
    return f"*{_escaped('; '.join(found.machines))}; threads {threads}; {days}; commit {commits}; {commands}*"


def _escaped(text: str) -> str:
    """Text that Markdown must not read as markup of its own."""
    return text.replace("|", r"\|").replace("*", r"\*").replace("<", "&lt;")
