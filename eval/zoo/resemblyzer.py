"""Resemblyzer: a speaker encoder, 40 mel bands -> 3 x 256; the embedding is read from the last hidden state."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from adaptive_lstm.cli.demo.resemblyzer import SpeakerEncoder, equal_error_rate
from adaptive_lstm.losses import cosine_distance

from .base import COSINE, Figure, Golden, ZooModel, arrays, filled, golden_of, lstm_output, spread
from .material import Material, drawn, settling_in_depth, settling_in_time, skipping_and

FOLDER = "resemblyzer_3x256"
WINDOW, HOP = 160, 80  # frames of 10 ms
# Of the ten speakers, in the order of their names: the first calibrate, the next test, the last are for afterwards.
SPEAKERS = {"calibrate": slice(0, 4), "test": slice(4, 7), "fresh": slice(7, 10)}


def _windows(mels: Tensor) -> Tensor:
    """mels: [T, 40] -> its windows [W, 160, 40]."""
    return mels.unfold(0, WINDOW, HOP).transpose(1, 2).contiguous()


def _embed(model: nn.Module, windows: Tensor) -> Tensor:
    """[W, 160, 40] -> the embedding of the utterance [256]."""
    return normalize(model(windows).mean(0), dim=0)


def load(zoo: Path) -> ZooModel:
    """One input is one window [1, 160, 40] of an utterance; the figure is the equal error rate over all utterances."""
    folder = zoo / FOLDER
    utterances = arrays(folder / "mel_test_other.npz")
    first_utterance = next(iter(utterances.values()))

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        embeddings = torch.stack([_embed(model, _windows(mels)) for mels in list(utterances.values())[::every]])
        return {"EER": equal_error_rate(embeddings, [name.split("-")[0] for name in utterances][::every])}

    def material() -> Material:
        names = sorted({name.split("-")[0] for name in utterances})

        def windows(speakers: str, count: int, seed: int) -> tuple[Tensor, ...]:
            chosen = names[SPEAKERS[speakers]]
            return drawn([mels for n, mels in utterances.items() if n.split("-")[0] in chosen], WINDOW, count, seed)

        calibrate = windows("calibrate", 350, seed=0)
        return Material(
            fit=calibrate[:200],
            search=calibrate[200:],
            test=windows("test", 1000, seed=1),
            fresh=windows("fresh", 600, seed=2),
            promise="1.6 s from anywhere in the 30 utterances of three speakers, none of whom was heard by fit and "
            "search; fresh are three others. About speakers as such ten of them can prove nothing",
            loss=cosine_distance,
            max_loss=0.01,
            families=skipping_and(settling_in_time, settling_in_depth),
        )

    return ZooModel(
        name="resemblyzer",
        model=filled(SpeakerEncoder(), arrays(folder / "weights.npz")),
        inputs=spread([_windows(mels)[:1] for mels in utterances.values()], 40),
        distance=COSINE,
        golden=golden_of(
            folder / "golden.npz",
            lambda golden: (
                Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
                Golden("embedding", _embed, _windows(first_utterance), golden["embed"]),
            ),
        ),
        measure=measure,
        material=material,
        known={"EER": Figure(0.0044, 5e-5)},
        decisions={"EER": sum(math.comb(n, 2) for n in Counter(name.split("-")[0] for name in utterances).values())},
    )
