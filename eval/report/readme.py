"""What README takes from the report: the headline table as Markdown, and two figures as small files."""

from collections.abc import Iterator
from pathlib import Path

from eval import plots

from . import words
from .races import STEP, WHOLE, Race, in_mode, races
from .records import Results
from .sections import heat, summary


def markdown(results: Results) -> str:
    """The headline table."""
    header, rows = summary.headline(results)
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *([_bold(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bold(cell: str) -> str:
    return f"**{cell.removeprefix('*')}**" if cell.startswith("*") else cell


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
