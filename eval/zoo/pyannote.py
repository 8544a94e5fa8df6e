"""pyannote segmentation: 60 SincNet features -> 4 x 128 bidirectional -> two linear layers -> three speakers' activity.

The zoo holds the features that SincNet computes, so the model begins at its LSTM.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from adaptive_lstm.losses import Loss

from .base import Figure, Golden, ZooModel, arrays, decisions, family, filled, golden_of, lstm_output, spread
from .material import Material, drawn_parts, settling_in_depth, skipping_and

FOLDER = "pyannote_seg_4xbi128"
CHUNK, FRAMES = 5.0, 293  # seconds, and frames in them
THRESHOLD = 0.5
CALIBRATED = 146  # frames, 2.5 s: the calibration draws windows from within the chunks
# Recordings by part; nobody speaks in two parts.
PARTS = {
    "fit": ("trn00", "trn01", "trn02", "trn03"),
    "search": ("trn04", "trn05"),
    "test": ("trn06", "trn07", "trn08", "trn09"),
    "fresh": ("dev00", "dev01", "tst00", "tst01"),
}


class Segmentation(nn.Module):
    """Features [B, T, 60] -> activity of up to three speakers [B, T, 3], 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(60, 128, 4, batch_first=True, bidirectional=True)
        self.linear = nn.ModuleList([nn.Linear(256, 128), nn.Linear(128, 128)])
        self.classifier = nn.Linear(128, 3)

    def forward(self, features: Tensor) -> Tensor:
        x, _ = self.lstm(features)
        for layer in self.linear:
            x = leaky_relu(layer(x))
        return torch.sigmoid(self.classifier(x))


def _speech(activity: Tensor) -> Tensor:
    """[..., 3] -> whether anyone speaks [...]."""
    return activity.amax(-1) > THRESHOLD


def turns_of(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Recording -> (start, end) of everything that anyone says, in seconds, from the .rttm files."""
    turns = defaultdict(list)
    for path in folder.glob("*.rttm"):
        for line in path.read_text(encoding="utf-8").splitlines():
            _, recording, _, start, duration, *_ = line.split()
            turns[recording].append((float(start), float(start) + float(duration)))
    return turns


def _spoken(turns: list[tuple[float, float]], chunks: int) -> Tensor:
    """Whether anyone speaks at the middle of every frame [chunks, 293]."""
    middle = (torch.arange(FRAMES, dtype=torch.float64) + 0.5) * CHUNK / FRAMES
    time = CHUNK * torch.arange(chunks)[:, None] + middle
    spoken = torch.zeros(time.shape, dtype=torch.bool)
    for start, end in turns:
        spoken |= (time >= start) & (time < end)
    return spoken


def load(zoo: Path) -> ZooModel:
    """One input is one chunk of 5 s [1, 293, 60] of a meeting; the figures are those of its frames, speech or not."""
    folder = family(zoo, FOLDER)
    stored = arrays(folder / "weights.npz")
    recordings = arrays(folder / "sincnet_feats_5s.npz")

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        turns = turns_of(folder)
        found, spoken = [], []
        for name, features in list(recordings.items())[::every]:
            found += [_speech(model(chunk)) for chunk in features.split(1)]
            spoken.append(_spoken(turns[name], len(features)))
        got, want = torch.cat(found), torch.cat(spoken)
        return {
            "frame F1": 2 * int((got & want).sum()) / int(got.sum() + want.sum()),
            "frame accuracy": float((got == want).double().mean()),
        }

    def material() -> Material:
        chunks = {part: [c for name in names for c in recordings[name]] for part, names in PARTS.items()}
        differ = decisions("speech frames", _speech)
        return Material.of(
            drawn_parts(chunks.values(), CALIBRATED, (80, 60, 400, 200)),
            promise="2.5 s from anywhere in the 5 s chunks of a few meetings; nobody speaks in two parts",
            loss=Loss(differ.name, lambda output, dense, target: differ.between(output, dense)),
            max_loss=0.05,
            families=skipping_and(settling_in_depth),
        )

    return ZooModel(
        name="pyannote",
        model=filled(Segmentation(), {k: v for k, v in stored.items() if not k.startswith("sincnet.")}),
        inputs=spread([chunk for features in recordings.values() for chunk in features.split(1)], 28),
        distance=decisions("speech frames", _speech),
        golden=golden_of(
            folder / "golden.npz",
            lambda golden: (
                Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
                Golden("speech", lambda m, x: m(x).amax(-1), golden["x"], golden["vad"]),
            ),
        ),
        measure=measure,
        material=material,
        known={"frame F1": Figure(0.9435, 5e-5), "frame accuracy": Figure(0.9332, 5e-5)},
    )
