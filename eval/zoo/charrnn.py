"""Six character-level language models of ml5.js: embedding -> 2 x 128 or 2 x 256 -> next character; state carried."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import adaptive_lstm as al
from adaptive_lstm.losses import disagreement

from .base import Figure, Golden, ZooModel, arrays, decisions, family, filled, lstm_output
from .material import Material, drawn_parts, ranges, skipping_and

FOLDER = "charrnn_ml5_2x128_2x256"
# Model -> text -> bits per character.
BITS: Mapping[str, Mapping[str, float]] = {
    "bolano": {"bronte": 2.932, "dubois": 2.592},
    "charlotte_bronte": {"bronte": 1.949},
    "darwin": {"darwin": 2.644},
    "dubois": {"dubois": 2.833},
    "shakespeare": {"tinyshakespeare": 2.484},
    "zora_neale_hurston": {"hurston": 2.909},
}
FROM, TO, SCORED = 100_000, 140_000, 30_000  # characters of the text; of those that the model knows, the first
CHUNK = 1000  # characters per call
WINDOW, WINDOWS = 200, 24  # characters

State = tuple[Tensor, Tensor]


class CharRNN(nn.Module):
    """Characters [B, T] and the state after those before -> logits of the next one [B, T, V], and the new state."""

    def __init__(self, characters: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, hidden)
        self.lstm = nn.LSTM(hidden, hidden, 2, batch_first=True)
        self.out = nn.Linear(hidden, characters)

    def forward(self, characters: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        y, state = self.lstm(self.embedding(characters), state)
        return self.out(y), state


def bits_per_character(model: nn.Module, characters: Tensor) -> float:
    """Cross entropy of one long stream [T], read chunk by chunk with the state carried on."""
    logits, state = [], None
    for part in characters[None].split(CHUNK, dim=1):
        part_logits, state = model(part, state)
        logits.append(part_logits[0])
    return float(cross_entropy(torch.cat(logits)[:-1], characters[1:])) / math.log(2)


def _exit_in_depth(model: nn.Module) -> al.Family:
    return al.Family(al.ExitInDepth, head=model.get_submodule("out"))


def load(zoo: Path, author: str) -> ZooModel:
    """One input is 200 characters [1, 200] from a text by the author, or in the author's language."""
    folder = family(zoo, FOLDER)
    weights = arrays(folder / f"{author}.npz")
    vocabulary: dict[str, int] = json.loads((folder / f"{author}_vocab.json").read_text(encoding="utf-8"))

    def characters(text: str, newline: str | None) -> Tensor:
        with (folder / f"{text}.txt").open(encoding="utf-8", newline=newline) as file:
            return torch.tensor([vocabulary[c] for c in file.read()[FROM:TO] if c in vocabulary])

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        # SOURCE.txt read every line end as "\n". Two models were trained with "\r\n" and are better off with it (darwin
        # 2.378, zora_neale_hurston 1.963), so the inputs below keep it.
        read = {text: characters(text, newline=None)[: SCORED // every] for text in BITS[author]}
        return {f"bits/char {text}": bits_per_character(model, stream) for text, stream in read.items()}

    def material() -> Material:
        with (folder / f"{next(iter(BITS[author]))}.txt").open(encoding="utf-8", newline="") as file:
            text = torch.tensor([vocabulary[c] for c in file.read() if c in vocabulary])
        parts = [[part] for part in ranges(text, (3, 2, 3, 2))]
        return Material.of(
            drawn_parts(parts, WINDOW, (80, 60, 300, 200)),
            promise="200 characters from anywhere in one range of a text, which the model was mostly trained on; every "
            "part has a range of its own",
            loss=disagreement,
            max_loss=0.05,
            families=skipping_and(_exit_in_depth),
        )

    golden: tuple[Golden, ...] = ()
    if author == "bolano":
        stored = arrays(folder / "golden_bolano.npz")
        # This model amplifies rounding: torch's own float32 lies 2.5e-5 from its float64.
        golden = (Golden("LSTM", lstm_output(), stored["x"], stored["lstm_out"], tolerance=5e-5),)
    text = characters(next(iter(BITS[author])), newline="")
    return ZooModel(
        name=f"charrnn-{author}",
        model=filled(CharRNN(*weights["embedding.weight"].shape), weights),
        inputs=text[: WINDOWS * WINDOW].view(WINDOWS, WINDOW).split(1),
        distance=decisions("likeliest characters"),
        golden=golden,
        measure=measure,
        material=material,
        known={f"bits/char {text}": Figure(bits, 5e-4) for text, bits in BITS[author].items()},
    )
