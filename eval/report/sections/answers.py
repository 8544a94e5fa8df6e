"""The first screen: how fast, what it costs in quality, how sure that is, in a sentence per use."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from .. import words
from ..blocks import Block, Cards, Heading, Missing, Paragraph, Section
from ..races import BAND, MODEL, STEP, WHOLE, Race, geometric, in_mode, races
from ..records import Record, Results
from .fuzzing import failed
from .savings import promise

WAYS = {WHOLE: "One sequence at a time", STEP: "One stream, step by step"}
ROWS = (16, 64)  # sequences of a batch that stand for "batches" in one sentence
EXACT = "ours exact"


def _draw(results: Results) -> list[Block]:
    found, batches = races(results), _batches(results.of("throughput", "throughput"))
    blocks: list[Block] = [Cards(tuple(_cards(found, batches)))] if found or batches else []
    for heading, sentences in (
        ("How fast is it for me?", _speed(found, batches)),
        ("What does it cost me in quality?", _quality(found, results.of("savings"))),
        ("How sure is that?", _sureness(found, results)),
    ):
        told = list(sentences)
        blocks += [Heading(heading), *map(Paragraph, told)] if told else []
    lacking = tuple(name for name in ("frontier", "throughput", "savings", "validity") if not results.of(name))
    return [*blocks, Missing(lacking)] if lacking else blocks


SECTION = Section("answers", "Three questions", "", (), _draw)


def _cards(found: Sequence[Race], batches: Sequence[float]) -> Iterator[tuple[str, str]]:
    for mode, way in WAYS.items():
        mean, count = geometric(in_mode(found, mode))
        if count:
            yield words.times(mean), f"as fast as the best peer at equal quality. {way}, {_models(count)}."
    if batches:
        rows = " and ".join(map(str, ROWS))
        yield (
            words.times(words.geometric_mean([*batches])),
            f"as fast as the fastest peer. Batches of {rows}.",
        )


def _speed(found: Sequence[Race], batches: Sequence[float]) -> Iterator[str]:
    for mode, way in WAYS.items():
        some = [race for race in in_mode(found, mode) if race.gain is not None and race.mine is not None]
        if not some:
            continue
        (against_peer, count), (against_torch, _) = geometric(some), geometric(some, torch=True)
        gains = [race.gain for race in some if race.gain is not None]
        usual, often = Counter(race.mine.name.removeprefix("ours ") for race in some if race.mine).most_common(1)[0]
        yield (
            f"{way}: {words.times(against_peer)} as fast as the best other runtime of equal quality "
            f"({words.times(min(gains))} to {words.times(max(gains))}) and {words.times(against_torch)} as fast as "
            f"torch fp32, over {_models(count)}, with `{usual}` in {often} of them."
        )
    whole = in_mode(found, MODEL)
    (against_peer, count), (against_torch, _) = geometric(whole), geometric(whole, torch=True)
    if count:
        yield (
            f"With all that a model does around its LSTM, one sequence at a time: {words.times(against_peer)} and "
            f"{words.times(against_torch)}."
        )
    if batches:
        yield (
            f"Batches of {' and '.join(map(str, ROWS))} sequences: "
            f"{words.times(words.geometric_mean([*batches]))} as fast as the fastest other runtime of any precision "
            f"({words.times(min(batches))} to {words.times(max(batches))}), on random weights, whose quality nobody "
            "can judge."
        )


def _quality(found: Sequence[Race], savings: Sequence[Record]) -> Iterator[str]:
    lost = [race.mine.lost for race in found if race.mine is not None and race.mine.lost is not None]
    if lost:
        exact = [speed for race in found if (speed := _of_exact(race)) is not None]
        steps = sum(one > BAND for one in lost)
        yield (
            f"At most {BAND:.0%} of the task's quality, or one decision of a small test set: the settings behind these "
            f"figures lose {words.percent(median(lost), 2)} in the median; {steps} of {len(lost)} lose more than "
            f"{BAND:.0%}, by that one decision. `exact` loses nothing and is "
            f"{words.times(words.geometric_mean(exact))} as fast as torch fp32."
        )
    if savings:
        useful = [r for r in savings if r.get("skipped")]
        gains = [s for r in useful if (s := words.quoted(r["speed"].get("int8"))) is not None]
        yield (
            f"Skipping costs what you allow: `calibrate` found a policy that saves time within the limit in "
            f"{len(useful)} of {len(savings)} calibrations, which then run "
            f"{words.times(words.geometric_mean(gains))} as fast as int8 that skips nothing; in the others it says so, "
            "and nothing is skipped."
        )


def _of_exact(race: Race) -> float | None:
    runner, dense = next((r for r in race.runners if r.name == EXACT), None), race.dense()
    return words.speed(dense.timing, runner.timing) if runner is not None and dense is not None else None


def _sureness(found: Sequence[Race], results: Results) -> Iterator[str]:
    if found:
        known = sum(race.gain is not None for race in found)
        yield (
            f"Contenders ran interleaved, and a ratio whose quartiles lie too far apart is not quoted: {known} of "
            f"{len(found)} are."
        )
    if certified := [r for r in results.of("savings") if r.get("certified")]:
        kept = sum(promise(r) == "kept" for r in certified)
        text = f"On data that no calibration saw, {kept} of {len(certified)} certificates kept their limit."
        if repeated := [(r, row) for r in results.of("validity") for row in r["rows"] if row["confidence"] == 0.95]:
            false = sum(row["false"] * r["repeats"] for r, row in repeated)
            count = sum(r["repeats"] for r, _ in repeated)
            passed = sum(row["verdict"] == "PASS" for _, row in repeated)
            text += (
                f" Of {count:,} calibrations, repeated at confidence 0.95, {words.percent(false / count, 1)} were "
                f"false, where 5 % are allowed; {passed} of {len(repeated)} kinds of loss, the worst case among them, "
                "lie within that and the slack of so many repeats."
            )
        yield text
    if fuzzed := results.of("fuzzing"):
        cases = sum(sum(r["cases"].values()) for r in fuzzed)
        yield (
            f"{cases:,} random models and files ran on the native kernels and on a readable reference: "
            f"{sum(map(failed, fuzzed)):,} differences remained unexplained."
        )


def _batches(records: Sequence[Record]) -> list[float]:
    """How many times as fast as the fastest peer the fastest of this project is, per stack and batch, one thread."""
    gains = []
    some = [r for r in records if r["threads"] == 1 and r["batch"] in ROWS]
    for case in dict.fromkeys((r["I"], r["H"], r["L"], r["batch"]) for r in some):
        best: dict[bool, float] = {}
        for r in some:
            speed = words.quoted(r["speed"].get("torch, padded"))
            if (r["I"], r["H"], r["L"], r["batch"]) == case and speed is not None:
                best[r["ours"]] = max(speed, best.get(r["ours"], 0.0))
        if len(best) == 2:
            gains.append(best[True] / best[False])
    return gains


def _models(count: int) -> str:
    return "one model" if count == 1 else f"{count} models"
