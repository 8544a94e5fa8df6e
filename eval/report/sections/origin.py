"""On what, with what and from which commit: without that no number means anything."""

from .. import page, words
from ..records import COMMANDS, Results, origin

TITLE = "Where the numbers are from"


def build(results: Results) -> page.Section:
    every = list(results.everything())
    if not every:
        return page.Section("origin", TITLE, (page.warning("There are no records at all yet."),))
    found = origin(every)
    body = []
    for what, values in (
        ("machines", found.machines),
        ("commits", found.commits),
        ("sets of versions", found.versions),
    ):
        if len(values) > 1:
            body.append(page.warning(f"The records come from {len(values)} different {what}: {'; '.join(values)}. "
                                     "Compare within a table row, not across tables."))  # fmt: skip
    if any(commit.endswith("-dirty") for commit in found.commits):
        body.append(page.warning("Some records were taken with uncommitted changes: commits that end with -dirty."))
    if "unknown" in found.commits:
        body.append(page.warning("Some records do not know their commit: they were taken outside a checkout."))
    body.append(page.paragraph(f"Machine: {'; '.join(found.machines)}. Versions: {'; '.join(found.versions)}."))
    body.append(
        page.paragraph(
            "Contenders of one race run interleaved in one process, in a new order every round; figures are medians, "
            "whiskers quartiles. A ratio whose quartiles lie too far apart is not printed: n/a stands in its place."
        )
    )
    rows = []
    for name, records in results.by_name.items():
        one = origin(records)
        rows.append([name, COMMANDS.get(name, words.NA), len(records), ", ".join(one.threads),
                     _span(one.first, one.last), ", ".join(one.commits)])  # fmt: skip
    header = ["evaluation", "command", "records", "threads", "taken (UTC)", "commits"]
    body.append(page.table(header, rows, caption="Records by evaluation."))
    return page.Section("origin", TITLE, tuple(body))


def _span(first: str, last: str) -> str:
    first, last = first[:16].replace("T", " "), last[:16].replace("T", " ")
    return first if first == last else f"{first} to {last}"
