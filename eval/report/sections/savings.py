"""What certified skipping saves, and whether its promise was kept."""

from eval.report import plots

from .. import page, words
from ..records import Record, Results

OBJECTIVES = {"macs": "multiply-accumulates", "latency": "time"}


def build(results: Results) -> page.Section:
    records = results.of("worth")
    body = [
        page.paragraph(
            "A calibration picks what to skip and proves, on sequences kept aside for that, that the loss stays below "
            "a limit with the confidence that was asked for. Here it ran on real models, compressed to int8 first; "
            "fresh sequences, which it never saw, then put the promise to the test. It is broken if they contradict "
            "the limit, not if a small sample lies above it by chance."
        )
    ]
    done = [r for r in records if "failed" not in r]
    if not done:
        return page.Section("worth", "What certified skipping saves", (*body, page.missing("worth")))
    for objective, told in OBJECTIVES.items():
        if some := [r for r in done if r["case"] == objective]:
            body += [f"<h3>Calibrated to save {told}</h3>", _figure(some), _table(some)]
    body += [page.warning(f"{r['group']}: the calibration failed: {r['failed']}") for r in records if "failed" in r]
    body.append(page.details("What each promise is about", "".join(page.paragraph(_promise(r)) for r in done)))
    return page.Section("worth", "What certified skipping saves", tuple(body))


def _promise(r: Record) -> str:
    return f"{r['group']}: policy {r['policy']}; {r['loss']} at most {r['max_loss']:g}; a sequence is {r['promise']}."


def _figure(records: list[Record]) -> str:
    order = sorted(records, key=lambda r: -r["skipped"])
    skipped = [
        (r["group"], plots.Mark("", r["skipped"] * 100, 0, r["skipped"] * 100, words.percent(r["skipped"])))
        for r in order
    ]
    panels = [(_alt(order), plots.dots(skipped, title="Work skipped", unit="% of multiply-accumulates", log=False))]
    lacking = []
    for base, title in (("int8", "int8 that skips nothing"), ("torch", "torch fp32")):
        usable = [r for r in order if words.quiet(r["speed"][base])]
        lacking += [f"{r['group']} against {base}" for r in order if r not in usable]
        marks = [(r["group"], _speed_mark(r["speed"][base])) for r in usable]
        if marks:
            alt = f"Speed against {title}: " + "; ".join(f"{label} {m.words}" for label, m in marks)
            panels.append((alt, plots.dots(marks, title=f"Speed against {title}", unit="times as fast", line=1.0)))
    return page.figure(
        panels,
        caption="Left: the share of all multiply-accumulates that was left out on the test split. Then: the time of "
        "the whole model at batch 1; right of the dashed line the certified policy is faster. Whiskers are quartiles. "
        "On whole sequences plain int8 shares its weights between timesteps, so skipped work is not yet saved time.",
        records=records,
        na=", ".join(lacking),
    )


def _speed_mark(speed: Record) -> plots.Mark:
    return plots.Mark("", speed["median"], speed["p25"], speed["p75"], words.times(speed["median"]))


def _alt(order: list[Record]) -> str:
    return "Work skipped: " + ", ".join(f"{r['group']} {words.percent(r['skipped'])}" for r in order)


def _table(records: list[Record]) -> str:
    header = ["model", "certified", "limit", "loss, test", "loss, fresh", "promise", "work skipped", "of the recurrent",
              "time saved", "against fp32", "against torch", "calibration"]  # fmt: skip
    return page.table(
        header,
        [_row(r) for r in sorted(records, key=lambda r: -r["skipped"])],
        caption="Losses are means over sequences; time saved is against the same int8 model with nothing skipped "
        "(negative: skipping costs time there); speeds are against this project's exact fp32 and against torch.",
    )


def _row(r: Record) -> list[str]:
    kept = "kept" if r["fresh_at_least"] <= r["max_loss"] else "*BROKEN"
    return [
        r["group"],
        "yes" if r["certified"] else "no",
        f"{r['max_loss']:g}",
        words.number(r["loss_test"], 3),
        words.number(r["loss_fresh"], 3),
        kept if r["certified"] else "none made",
        words.percent(r["skipped"]),
        words.percent(r["skipped_recurrent"]),
        words.percent(r["saved"]),
        words.times(words.quoted(r["speed"]["fp32"])),
        words.times(words.quoted(r["speed"]["torch"])),
        words.seconds(r["seconds"]),
    ]
