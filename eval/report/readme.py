"""What README takes from the report: the headline table as Markdown, and two figures as small files."""

from collections.abc import Iterator
from pathlib import Path

from eval.report import plots

from . import words
from .races import STEP, WHOLE, Race, geometric, in_mode, races
from .records import Results
from .sections import heat

COLUMNS = ("best peer,", "here,", "/ peer,", "/ torch,")


def markdown(results: Results) -> str:
    """A row per model: whole sequences, then steps; the means over the zoo at the end."""
    found = races(results)
    by_mode = {mode: {race.model: race for race in in_mode(found, mode)} for mode in (WHOLE, STEP)}
    models = sorted({race.model for race in found})
    rows = [[name, *(cell for mode in by_mode for cell in _cells(by_mode[mode].get(name)))] for name in models]
    rows.append([f"**geometric mean** of {len(models)}"])
    for mode in by_mode:
        some = list(by_mode[mode].values())
        rows[-1] += ["", "", *(f"**{words.times(geometric(some, torch=torch)[0])}**" for torch in (False, True))]
    header = ["model", *(f"{what} {mode}" for mode in ("sequence", "step") for what in COLUMNS)]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(race: Race | None) -> list[str]:
    """Of one model in one mode, as in COLUMNS."""
    if race is None:
        return ["", "", "", ""]
    who = [words.NA if r is None else f"{r.name.removeprefix('ours ')}, {words.seconds(r.seconds)}"
           for r in (race.peer, race.mine)]  # fmt: skip
    return [*who, words.times(race.gain), words.times(race.gain_on_torch)]


def draw(results: Results, folder: Path) -> Iterator[Path]:
    """Draw speed.svg (who is how fast at equal quality) and skipping.svg (a heat map), where there are records."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [race for race in races(results) if race.gain is not None]
    if found:
        yield _write(folder / "speed.svg", _speed(found))
    if records := results.of("heatmap"):
        yield _write(folder / "skipping.svg", heat.draw(records[0]))


def _write(path: Path, svg: str) -> Path:
    path.write_text(svg.replace("<svg", '<svg style="background:#fff"', 1) + "\n", encoding="utf-8")
    return path


def _speed(found: list[Race]) -> str:
    """How many times as fast as the best peer of equal quality this project is, per model and mode."""
    marks = []
    for mode in (WHOLE, STEP):
        for race in in_mode(found, mode):
            if race.gain is not None and race.peer is not None and race.mine is not None:
                both = f"{race.peer.name} {words.seconds(race.peer.seconds)}, here {words.seconds(race.mine.seconds)}"
                mark = plots.Mark(
                    race.mine.name, race.gain, race.gain, race.gain, f"{words.times(race.gain)}  ({both})"
                )
                marks.append((f"{race.model}, {mode}", mark))
    unit = "times as fast as the best peer of equal quality"
    return plots.dots(marks, title="Speed at equal quality, batch 1", unit=unit, line=1.0, width=8.0)
