"""Whether a compiled model is as fast as the model itself."""

from eval.graphs import BAR

from .. import words
from ..blocks import Block, Section, table
from ..records import Results


def _draw(results: Results) -> list[Block]:
    records = results.of("graphs")
    rows = [
        [
            r["group"],
            r["case"],
            *(words.seconds(r["seconds"][who]["median"]) for who in ("eager", "compiled")),
            words.times(words.quoted(r["speed"])),
            r["verdict"],
        ]
        for r in records
    ]
    header = ["model", "precision, timesteps", "al.adapt", "compiled", "speed", f"at least {BAR:g}×"]
    caption = "Median times of a call; speed: of the compiled model against the model that was compiled."
    return [table(header, rows, caption=caption, records=records)]


SECTION = Section(
    "graphs",
    "Is a compiled model as fast as the model?",
    "torch.compile of a whole model whose LSTM is one operation of its graph. Batch 1; both give the same outputs.",
    ("graphs",),
    _draw,
)
