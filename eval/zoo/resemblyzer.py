"""Resemblyzer: a speaker encoder, 40 mel bands -> 3 x 256; the embedding is read from the last hidden state."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from adaptive_lstm.cli.demo.task import SequenceModel
from adaptive_lstm.losses import cosine_distance

from .base import COSINE, Figure, Golden, ZooModel, arrays, family, filled, golden_of, lstm_output, spread
from .material import Material, drawn, settling_in_depth, settling_in_time, skipping_and

FOLDER = "resemblyzer_3x256"
BANDS, HIDDEN, LAYERS, EMBEDDING = 40, 256, 3, 256
WINDOW, HOP = 160, 80  # frames of 10 ms
# Of the ten speakers, in the order of their names: the first calibrate, the next test, the last are for afterwards.
SPEAKERS = {"calibrate": slice(0, 4), "test": slice(4, 7), "fresh": slice(7, 10)}


class SpeakerEncoder(SequenceModel):
    """[N, T, 40] mel frames -> [N, 256] embeddings of length 1, from the last hidden state of the top layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, HIDDEN, LAYERS, batch_first=True)
        self.linear = nn.Linear(HIDDEN, EMBEDDING)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        return normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def equal_error_rate(embeddings: Tensor, speakers: list[str]) -> float:
    """Error rate of "same speaker?" over all pairs, at the cosine where both kinds of error are equally frequent.

    Args:
        embeddings: [U, K], one per utterance.
        speakers: the U names.
    """
    unit = normalize(embeddings, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    cosine = (unit[first] * unit[second]).sum(1)
    same = torch.tensor([speakers[a] == speakers[b] for a, b in zip(first.tolist(), second.tolist(), strict=True)])
    falling = same[cosine.argsort(descending=True)].double()
    refused = 1 - falling.cumsum(0) / falling.sum()  # same speaker, cosine below the threshold
    accepted = (1 - falling).cumsum(0) / (1 - falling).sum()  # another speaker, cosine above it
    at = int((refused - accepted).abs().argmin())
    return float((refused[at] + accepted[at]) / 2)


def windows(mels: Tensor) -> Tensor:
    """mels: [T, 40] -> its windows [W, 160, 40]."""
    return mels.unfold(0, WINDOW, HOP).transpose(1, 2).contiguous()


def _embed(model: nn.Module, windows: Tensor) -> Tensor:
    """[W, 160, 40] -> the embedding of the utterance [256]."""
    return normalize(model(windows).mean(0), dim=0)


def load(zoo: Path) -> ZooModel:
    """One input is one window [1, 160, 40] of an utterance; the figure is the equal error rate over all utterances."""
    folder = family(zoo, FOLDER)
    utterances = arrays(folder / "mel_test_other.npz")
    first_utterance = next(iter(utterances.values()))

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        embeddings = torch.stack([_embed(model, windows(mels)) for mels in list(utterances.values())[::every]])
        return {"EER": equal_error_rate(embeddings, [name.split("-")[0] for name in utterances][::every])}

    def material() -> Material:
        names = sorted({name.split("-")[0] for name in utterances})

        def drawn_windows(speakers: str, count: int, seed: int) -> tuple[Tensor, ...]:
            chosen = names[SPEAKERS[speakers]]
            return drawn([mels for n, mels in utterances.items() if n.split("-")[0] in chosen], WINDOW, count, seed)

        calibrate = drawn_windows("calibrate", 350, seed=0)
        return Material(
            fit=calibrate[:200],
            search=calibrate[200:],
            test=drawn_windows("test", 1000, seed=1),
            fresh=drawn_windows("fresh", 600, seed=2),
            promise="1.6 s from anywhere in the 30 utterances of three speakers, none of whom was heard by fit and "
            "search; fresh are three others. About speakers as such ten of them can prove nothing",
            loss=cosine_distance,
            max_loss=0.01,
            families=skipping_and(settling_in_time, settling_in_depth),
        )

    return ZooModel(
        name="resemblyzer",
        model=filled(SpeakerEncoder(), arrays(folder / "weights.npz")),
        inputs=spread([windows(mels)[:1] for mels in utterances.values()], 40),
        distance=COSINE,
        golden=golden_of(
            folder / "golden.npz",
            lambda golden: (
                Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
                Golden("embedding", _embed, windows(first_utterance), golden["embed"]),
            ),
        ),
        measure=measure,
        material=material,
        known={"EER": Figure(0.0044, 5e-5)},
        decisions={"EER": sum(math.comb(n, 2) for n in Counter(name.split("-")[0] for name in utterances).values())},
    )
