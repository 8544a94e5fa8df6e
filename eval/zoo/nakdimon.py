"""Nakdimon: vowels for Hebrew letters; embedding -> 2 x 400 bidirectional, directions added up -> a head per mark.

Rebuilt from the ONNX file of the package, where its layers are loops of matrix products and no LSTM nodes. The text is
the Hebrew Bible, whose vowels show how often the model is right; it learned modern Hebrew.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_lstm.losses import Loss

from .base import Distance, ZooModel, family, filled, initializers, spread
from .material import Material, parted

FOLDER = "nakdimon_2xbi400"
FILE = "Nakdimon.onnx"
H = 400
# What the model reads: "" is padding, H, O and 5 stand for ligatures, other characters and digits.
LETTERS = ["", "H", "O", "5", *" !\"'(),-.:;?", *map(chr, range(0x5D0, 0x5EB))]
FINALS = dict(zip("ךםןףץ", "כמנפצ", strict=True))
RAFE, MAQAF, DAGESH = "\u05bf", "\u05be", "\u05bc"
# What its heads choose from; "": the letter cannot carry one, RAFE: it carries none. It learned the second \u05b7.
VOWELS = ["", RAFE, *map(chr, range(0x5B0, 0x5BD)), "\u05b7"]
DOTS = ["", RAFE, DAGESH]
SHIN = ["", RAFE, "\u05c1", "\u05c2"]
HEADS = (len(VOWELS), len(DOTS), len(SHIN))
VOWELLED, DOTTED = set("אבגדהוזחטיכלמנסעפצקרשתךן"), set("בגדהוזטיכלמנספצקשתךף")  # letters that can carry one
MARKS = re.compile("[\u0591-\u05af\u05bd\u05c0\u05c3-\u05c6\u034f\u200d|׀]")  # of singers and scribes, no vowels
WRITTEN = str.maketrans("\u05c7\u05ba", "\u05b8\u05b9")  # marks as the model's texts write them
LONGEST = 80  # letters of a verse; the model learned from lines no longer
VERSES = 1600  # of the text, of which the shorter ones are taken


class Pointer(nn.Module):
    """Letters [B, T] -> logits of vowel, dot and side of the shin [B, T, 23]; zero where a letter cannot carry one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), H)
        self.lstm1 = nn.LSTM(H, H, batch_first=True, bidirectional=True)
        self.lstm2 = nn.LSTM(H, H, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(H, H)
        self.heads = nn.Linear(H, sum(HEADS))
        can = [[letter in some for some in (VOWELLED, DOTTED, "ש")] for letter in LETTERS]
        can[0] = [False] * len(HEADS)
        self.can: Tensor
        self.register_buffer("can", torch.tensor(can).repeat_interleave(torch.tensor(HEADS), 1), persistent=False)

    def forward(self, letters: Tensor) -> Tensor:
        x = self.embedding(letters)
        for lstm in (self.lstm1, self.lstm2):
            y, _ = lstm(x)
            x = y[..., :H] + y[..., H:]
        logits: Tensor = self.heads(self.linear(x)) * self.can[letters]
        return logits


def marks(logits: Tensor) -> Tensor:
    """[..., 23] -> the places of the three choices in VOWELS, DOTS and SHIN [..., 3]."""
    return torch.stack([part.argmax(-1) for part in logits.split(HEADS, dim=-1)], dim=-1)


def _differ(logits: Tensor, dense: Tensor) -> float:
    """Share of the letters that can carry a mark whose marks are others."""
    asked = dense.any(-1)
    other = (marks(logits) != marks(dense)).any(-1)
    return float(other[asked].double().mean()) if asked.any() else 0.0


def converted(content: bytes) -> dict[str, Tensor]:
    """The parameters of ``Pointer`` from the ONNX file: Keras' kernels [I, 4H], gates i, f, c, o, one bias."""
    stored = initializers(content)
    weights = {"embedding.weight": next(a for name, a in stored.items() if name.startswith("model/embedding"))}
    # The inputs of a loop are numbered through: kernel, recurrent kernel, bias.
    for lstm, layer in (("lstm1", ""), ("lstm2", "_1")):
        for suffix, way in (("", "forward"), ("_reverse", "backward")):
            start = f"Func/model/bidirectional{layer}/{way}_lstm{layer}/PartitionedCall/input/_"
            numbers = sorted(int(name[len(start) : -2]) for name in stored if name.startswith(start))
            kernel, recurrent, bias = (stored[f"{start}{number}:0"] for number in numbers)
            weights |= {f"{lstm}.weight_ih_l0{suffix}": kernel.T, f"{lstm}.weight_hh_l0{suffix}": recurrent.T}
            weights |= {f"{lstm}.bias_ih_l0{suffix}": bias, f"{lstm}.bias_hh_l0{suffix}": np.zeros_like(bias)}
    dense = {name: (f"model/{name}/Tensordot/ReadVariableOp:0", f"model/{name}/BiasAdd/ReadVariableOp:0") for name in
             ("dense", "N", "D", "S")}  # fmt: skip
    weights |= {"linear.weight": stored[dense["dense"][0]].T, "linear.bias": stored[dense["dense"][1]]}
    weights["heads.weight"] = np.concatenate([stored[dense[name][0]].T for name in "NDS"])
    weights["heads.bias"] = np.concatenate([stored[dense[name][1]] for name in "NDS"])
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in weights.items()}


def letters(verse: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every character of a verse with vowels, and the places of its marks, as ``marks`` gives them."""
    for found in re.finditer("[^\u05b0-\u05c7][\u05b0-\u05c7]*", MARKS.sub("", verse).replace(MAQAF, "-").strip()):
        letter, carried = found[0][0], set(found[0][1:].translate(WRITTEN))
        dot = DAGESH if DAGESH in carried else RAFE if letter in DOTTED else ""
        shin = next((s for s in SHIN[2:] if s in carried), RAFE if letter == "ש" else "")
        vowel = next((v for v in VOWELS[2:-2] if v in carried), RAFE if letter in VOWELLED else "")
        if letter == "ו" and dot == DAGESH and vowel == RAFE:
            dot, vowel = RAFE, DAGESH
        last = len(VOWELS) - 1 - VOWELS[::-1].index(vowel)
        yield letter, (last, DOTS.index(dot), SHIN.index(shin))


def verses(path: Path) -> list[tuple[Tensor, Tensor]]:
    """The first verses of a file that are short enough, each once: letters [1, T] and their marks [1, T, 3]."""
    found: dict[tuple[int, ...], Tensor] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[:VERSES]:
        pairs = list(letters(line))
        key = tuple(_number(FINALS.get(letter, letter)) for letter, _ in pairs)
        if 1 < len(key) < LONGEST:
            found.setdefault(key, torch.tensor([[places for _, places in pairs]]))
    return [(torch.tensor([key]), gold) for key, gold in found.items()]


def _number(letter: str) -> int:
    return LETTERS.index(letter if letter in LETTERS[4:] else "O")


def load(zoo: Path) -> ZooModel:
    """One input is a verse without its vowels [1, T]; the figure is the share of letters with the marks of the text."""
    folder = family(zoo, FOLDER)
    known = verses(folder / "verses.txt")
    differ = Distance("letters whose marks differ", _differ)

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        right = []
        for x, gold in known[:: 10 * every]:
            same = (marks(model(x)) == gold) | (gold == 0)
            right.append(same.all(-1)[gold.any(-1)])
        return {"letters right": float(torch.cat(right).double().mean())}

    def material() -> Material:
        return Material.of(
            parted([x for x, _ in known], (80, 60, 400, 200), seed=0),
            promise=f"verses of at most {LONGEST} letters, drawn from the first books of one text",
            loss=Loss(differ.name, lambda output, dense, target: differ.between(output, dense)),
            max_loss=0.05,
        )

    return ZooModel(
        name="nakdimon",
        model=filled(Pointer(), converted((folder / FILE).read_bytes())),
        inputs=spread([x for x, _ in known], 24),
        distance=differ,
        measure=measure,
        material=material,
    )
