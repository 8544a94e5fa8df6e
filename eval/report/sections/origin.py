"""Machines, versions and commits of all records."""

from .. import words
from ..blocks import Block, Paragraph, Section, Table, table
from ..records import COMMANDS, Origin, Results, origin


def _draw(results: Results) -> list[Block]:
    every = list(results.everything())
    if not every:
        return [Paragraph("There are no records at all yet.", "warning")]
    found = origin(every)
    return [
        *(Paragraph(warning, "warning") for warning in _warnings(found)),
        Paragraph(f"Machine: {'; '.join(found.machines)}. Versions: {'; '.join(found.versions)}."),
        Paragraph(
            "Contenders of one race run interleaved in one process, in a new order every round; figures are medians, "
            "whiskers quartiles. A ratio whose quartiles lie too far apart is not printed, but n/a."
        ),
        overview(results),
    ]


SECTION = Section("origin", "Where the numbers are from", "", (), _draw)


def _warnings(found: Origin) -> list[str]:
    warnings = [
        f"The records come from {len(values)} different {kind}: {'; '.join(values)}. Compare within a table row, not "
        "across tables."
        for kind, values in (
            ("machines", found.machines),
            ("commits", found.commits),
            ("sets of versions", found.versions),
        )
        if len(values) > 1
    ]
    if any(commit.endswith("-dirty") for commit in found.commits):
        warnings.append("Some records were taken with uncommitted changes: commits that end with -dirty.")
    if "unknown" in found.commits:
        warnings.append("Some records do not know their commit: they were taken outside a checkout.")
    return warnings


def overview(results: Results) -> Table:
    """One row per evaluation: its command, and when and from which commits its records were taken."""
    rows = []
    for name, records in results.by_name.items():
        one = origin(records)
        rows.append([name, COMMANDS.get(name, words.NA), len(records), ", ".join(one.threads),
                     _span(one.first, one.last), ", ".join(one.commits)])  # fmt: skip
    header = ["evaluation", "command", "records", "threads", "taken (UTC)", "commits"]
    return table(header, rows, caption="Records by evaluation.", records=())


def _span(first: str, last: str) -> str:
    first, last = first[:16].replace("T", " "), last[:16].replace("T", " ")
    return first if first == last else f"{first} to {last}"
