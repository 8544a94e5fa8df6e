"""Arabic diacritizer: characters -> 3 x 256 bidirectional -> additive self-attention -> one of 15 diacritics each."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from adaptive_lstm.losses import disagreement

from .base import Figure, ZooModel, arrays, decisions, family, filled
from .material import Material, parted, settling_in_depth, skipping_and

FOLDER = "arabic_diacritizer_3xbi256"
LINES, LONGEST = 60, 400  # of the first 60 lines of the test text, those of at most 400 characters
INPUTS = 24
CALIBRATED = range(20, 101)  # characters of the lines that a calibration runs on
UNKNOWN = 1  # the id of a character that the model does not know
SHADDA = "\u0651"
QUERIES = 32  # per slice of the attention: all of 400 x 400 x 512 at once would take 330 MB


class AdditiveAttention(nn.Module):
    """[B, T, D] -> [B, T, D]: for every position the mean of all, weighted by v . tanh(W query + U key)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.W = nn.Linear(width, width, bias=False)
        self.U = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        keys = self.U(states).unsqueeze(1)
        queries = self.W(states).unsqueeze(2).split(QUERIES, dim=1)
        scores = torch.cat([self.v(torch.tanh(part + keys)).squeeze(-1) for part in queries], dim=1)
        return torch.softmax(scores, dim=-1) @ states


class Diacritizer(nn.Module):
    """Characters [B, T] -> logits of the diacritics [B, T, 15]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(54, 128, padding_idx=0)
        self.lstm = nn.LSTM(128, 256, 3, batch_first=True, bidirectional=True)
        self.attention = AdditiveAttention(512)
        self.classifier = nn.Linear(512, 15)

    def forward(self, characters: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(characters))
        logits: Tensor = self.classifier(self.attention(states))
        return logits


def _separate(line: str, marks: set[str]) -> tuple[str, list[str]]:
    """A line without its diacritics, and the diacritics of every character; the shadda stands first in compounds."""
    letters, labels = "", list[str]()
    for character in unicodedata.normalize("NFKC", line):
        if character not in marks:
            letters += character
            labels.append("")
        elif character == SHADDA:
            labels[-1] = SHADDA + labels[-1]
        else:
            labels[-1] += character
    return letters, labels


def _is_letter(character: str) -> bool:
    return "\u0621" <= character <= "\u064a"


def load(zoo: Path) -> ZooModel:
    """One input is one line [1, T]. The figures are diacritic error rates: of all characters, and of letters alone."""
    folder = family(zoo, FOLDER)
    tables = json.loads((folder / "vocab_labels.json").read_text(encoding="utf-8"))
    vocabulary, classes = tables["vocab"], tables["labels"]
    lines = (folder / "tashkeela_test.txt").read_text(encoding="utf-8").splitlines()[:LINES]
    separated = [_separate(line, set("".join(classes))) for line in lines]
    short = [(letters, labels) for letters, labels in separated if len(letters) <= LONGEST]

    def encode(letters: str) -> Tensor:
        return torch.tensor([[vocabulary.get(letter, UNKNOWN) for letter in letters]])

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        wrong, is_letter = [], []
        for letters, labels in short[::every]:
            predicted = model(encode(letters))[0].argmax(-1)
            wrong.append(predicted != torch.tensor([classes[label] for label in labels]))
            is_letter.append(torch.tensor([_is_letter(letter) for letter in letters]))
        errors, letters_only = torch.cat(wrong).double(), torch.cat(is_letter)
        return {"DER": float(errors.mean()), "DER letters": float(errors[letters_only].mean())}

    def material() -> Material:
        def lines(split: str) -> list[Tensor]:
            read = (folder / f"tashkeela_{split}.txt").read_text(encoding="utf-8").splitlines()
            letters = dict.fromkeys(_separate(line, set("".join(classes)))[0] for line in read)
            return [encode(line) for line in letters if len(line) in CALIBRATED]

        return Material.of(
            [*parted(lines("val"), (80, 60), seed=0), *parted(lines("test"), (250, 150), seed=1)],
            promise="lines of 20 to 100 characters, drawn from the test text; fit and search from the validation text",
            loss=disagreement,
            max_loss=0.05,
            families=skipping_and(settling_in_depth),
        )

    return ZooModel(
        name="arabic",
        material=material,
        model=filled(Diacritizer(), arrays(folder / "bilstm_best.pt")),
        inputs=tuple(encode(letters) for letters, _ in short[:INPUTS]),
        distance=decisions("diacritics"),
        measure=measure,
        known={"DER": Figure(0.0117, 5e-5), "DER letters": Figure(0.0158, 5e-5)},
        decisions={
            "DER": sum(len(letters) for letters, _ in short),
            "DER letters": sum(_is_letter(letter) for letters, _ in short for letter in letters),
        },
    )
