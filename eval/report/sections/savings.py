"""What certified skipping saves, and whether its promise was kept."""

from functools import partial

from .. import plots, words
from ..blocks import Block, Details, Figure, Heading, Panel, Paragraph, Section, Table, table
from ..records import Record, Results
from . import goals

OBJECTIVES = {"macs": "multiply-accumulates", "latency": "time", "latency, stream": "time in streams"}


def _draw(results: Results) -> list[Block]:
    records = results.of("savings")
    done = [r for r in records if "failed" not in r]
    blocks: list[Block] = []
    for objective, saved in OBJECTIVES.items():
        if some := [r for r in done if r["case"] == objective]:
            blocks += [Heading(f"Calibrated to save {saved}"), _figure(some), _table(some)]
            blocks += goals.of_savings(some, "stream" if objective.endswith("stream") else "sequence")
    failed = [r for r in records if "failed" in r]
    blocks += [Paragraph(f"{r['group']}: the calibration failed: {r['failed']}", "warning") for r in failed]
    if done:
        blocks.append(Details("What each promise is about", tuple(Paragraph(_promise(r)) for r in done)))
    return blocks


SECTION = Section(
    "savings",
    "What certified skipping saves",
    "A calibration picks what to skip and proves, on sequences kept aside for that, that the loss stays below a limit "
    "with the chosen confidence. Here it ran on real models, compressed to int8 first; fresh sequences, "
    "which it never saw, then put the promise to the test. It is kept where their mean loss is within the limit, in "
    "doubt where it lies above by no more than chance allows in so small a sample, broken where they contradict it.",
    ("savings",),
    _draw,
)


def _promise(r: Record) -> str:
    return f"{r['group']}: policy {r['policy']}; {r['loss']} at most {r['max_loss']:g}; a sequence is {r['promise']}."


def _figure(records: list[Record]) -> Figure:
    order = sorted(records, key=lambda r: -r["skipped"])
    skipped = [
        (r["group"], plots.Mark("", r["skipped"] * 100, 0, r["skipped"] * 100, words.percent(r["skipped"])))
        for r in order
    ]
    work = partial(plots.dots, skipped, title="Work skipped", unit="% of multiply-accumulates", log=False)
    panels = [Panel(_alt(order), work)]
    lacking = []
    for base, title in (("int8", "int8 that skips nothing"), ("torch", "torch fp32")):
        timed = [r for r in order if base in r["speed"]]
        usable = [r for r in timed if words.quiet(r["speed"][base])]
        lacking += [f"{r['group']} against {base}" for r in timed if r not in usable]
        marks = [(r["group"], _speed_mark(r["speed"][base])) for r in usable]
        if marks:
            alt = f"Speed against {title}: " + "; ".join(f"{label} {m.words}" for label, m in marks)
            draw = partial(plots.dots, marks, title=f"Speed against {title}", unit="times as fast", line=1.0)
            panels.append(Panel(alt, draw))
    return Figure(
        tuple(panels),
        "Left: the share of all multiply-accumulates that was left out on the test split. Then: the time of the whole "
        "model at batch 1; right of the dashed line the certified policy is faster. Whiskers are quartiles. On whole "
        "sequences dense int8 reads its weights once for several timesteps, so skipped columns save less time there.",
        tuple(records),
        left_out=", ".join(lacking),
    )


def _speed_mark(speed: Record) -> plots.Mark:
    return plots.Mark("", speed["median"], speed["p25"], speed["p75"], words.times(speed["median"]))


def _alt(order: list[Record]) -> str:
    return "Work skipped: " + ", ".join(f"{r['group']} {words.percent(r['skipped'])}" for r in order)


def _table(records: list[Record]) -> Table:
    header = ["model", "certified", "limit", "loss, test", "loss, fresh", "promise", "work skipped", "of the recurrent",
              "time saved", "against fp32", "against torch", "calibration"]  # fmt: skip
    return table(
        header,
        [_row(r) for r in sorted(records, key=lambda r: -r["skipped"])],
        caption="Losses are means over sequences; time saved is against the same int8 model with nothing skipped "
        "(negative: skipping costs time there; n/a: too noisy to tell); speeds are against this project's exact fp32 "
        "and against torch.",
        records=records,
    )


def promise(r: Record) -> str:
    """What fresh sequences say of a certificate, in a word."""
    if not r["certified"]:
        return "none made"
    if r["loss_fresh"] <= r["max_loss"]:
        return "kept"
    return "in doubt" if r["fresh_at_least"] <= r["max_loss"] else "*BROKEN"


def _row(r: Record) -> list[str]:
    return [
        r["group"],
        "yes" if r["certified"] else "no",
        f"{r['max_loss']:g}",
        words.number(r["loss_test"], 3),
        words.number(r["loss_fresh"], 3),
        promise(r),
        words.percent(r["skipped"]),
        words.percent(r["skipped_recurrent"]),
        words.percent(r["saved"] if words.quiet(r["speed"]["int8"]) else None),
        words.times(words.quoted(r["speed"]["fp32"])),
        words.times(words.quoted(r["speed"]["torch"])) if "torch" in r["speed"] else "",
        words.seconds(r["seconds"]),
    ]
