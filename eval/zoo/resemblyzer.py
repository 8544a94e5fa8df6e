"""Resemblyzer: a speaker encoder, 40 mel bands -> 3 x 256; the embedding is read from the last hidden state."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from adaptive_lstm.demo.resemblyzer import SpeakerEncoder, equal_error_rate

from .base import COSINE, Figure, Golden, ZooModel, arrays, filled, lstm_output, spread

FOLDER = "resemblyzer_3x256"
WINDOW, HOP = 160, 80  # frames of 10 ms


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
    golden = arrays(folder / "golden.npz")
    first_utterance = next(iter(utterances.values()))

    @torch.no_grad()
    def measure(model: nn.Module) -> Mapping[str, float]:
        embeddings = torch.stack([_embed(model, _windows(mels)) for mels in utterances.values()])
        return {"EER": equal_error_rate(embeddings, [name.split("-")[0] for name in utterances])}

    return ZooModel(
        name="resemblyzer",
        model=filled(SpeakerEncoder(), arrays(folder / "weights.npz")),
        inputs=spread([_windows(mels)[:1] for mels in utterances.values()], 40),
        distance=COSINE,
        golden=(
            Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
            Golden("embedding", _embed, _windows(first_utterance), golden["embed"]),
        ),
        measure=measure,
        known={"EER": Figure(0.0044, 5e-5)},
    )
