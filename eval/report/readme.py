"""What README takes from the report: a small table as Markdown, and two figures as small files."""

from collections.abc import Iterator
from pathlib import Path

from . import plots, words
from .races import STEP, WHOLE, Race, in_mode, races
from .records import Results
from .sections import heat

TASKS = {  # model of the zoo -> what it does, and its size
    "resemblyzer": "speaker embedding, 3 × 256",
    "fsdd-digits": "spoken digits, 3 × 128",
    "beatnet": "beat tracking, 2 × 150",
    "charrnn-shakespeare": "text generation, 2 × 128",
    "pjm": "load forecast, 2 × 256",
    "pyannote": "speaker segmentation, 4 × 128 both ways",
}
HEADER = ("task", "torch", "best peer at equal quality", "adaptive_lstm", "streaming step")


def markdown(results: Results) -> str:
    """A row per task that was raced: whole sequences, then a streaming step and its gain on the best peer."""
    found = races(results)
    whole, step = ({race.model: race for race in in_mode(found, mode)} for mode in (WHOLE, STEP))
    rows = [[task, *_whole(whole[model]), _step(step.get(model))] for model, task in TASKS.items() if model in whole]
    lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _whole(race: Race) -> tuple[str, str, str]:
    dense, peer, mine = race.dense(), race.peer, race.mine
    return (
        words.seconds(dense.seconds if dense else None),
        f"{words.seconds(peer.seconds)} ({peer.name})" if peer else words.NA,
        f"**{words.seconds(mine.seconds)}** ({words.times(race.gain)})" if mine else words.NA,
    )


def _step(race: Race | None) -> str:
    """Blank for a model that reads its sequences in both directions."""
    if race is None:
        return ""
    return f"**{words.seconds(race.mine.seconds)}** ({words.times(race.gain)})" if race.mine else words.NA


def draw(results: Results, folder: Path) -> Iterator[Path]:
    """Draw speed.svg (speed at equal quality) and skipping.svg (a heat map), where there are records."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [race for race in races(results) if race.gain is not None and race.model in TASKS]
    if found:
        yield _write(folder / "speed.svg", _speed(found))
    if records := results.of("heatmap"):
        yield _write(folder / "skipping.svg", heat.plot(records[0]))


def _write(path: Path, svg: str) -> Path:
    path.write_text(svg.replace("<svg", '<svg style="background:#fff"', 1) + "\n", encoding="utf-8")
    return path


def _speed(found: list[Race]) -> str:
    """How many times as fast as the best peer of equal quality this project is, for every task of the table."""
    marks = []
    for model, task in TASKS.items():
        for race in (race for mode in (WHOLE, STEP) for race in in_mode(found, mode) if race.model == model):
            if race.gain is not None and race.peer is not None and race.mine is not None:
                both = f"{race.peer.name} {words.seconds(race.peer.seconds)}, here {words.seconds(race.mine.seconds)}"
                text = f"{words.times(race.gain)}  ({both})"
                mark = plots.Mark(race.mine.name, race.gain, race.gain, race.gain, text)
                marks.append((f"{task}, {race.mode}", mark))
    unit = "times as fast as the best peer of equal quality"
    return plots.dots(marks, title="Speed at equal quality, batch 1", unit=unit, line=1.0, width=8.0)
