"""Two classifiers of spoken digits, 40 mel bands -> 3 x 128: which digit, and which of six speakers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import adaptive_lstm as al
from adaptive_lstm.losses import disagreement

from .base import Figure, ZooModel, arrays, decisions, family, filled, spread
from .material import Material, parted, skipping_and

FOLDER = "fsdd_3x128"
Task = Literal["digits", "speakers"]
ACCURACY: Mapping[Task, float] = {"digits": 0.9867, "speakers": 0.9967}


class Classifier(nn.Module):
    """Frames [B, T, 40], or recordings of several lengths packed -> logits [B, classes], from the last hidden state."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 128, 3, batch_first=True)
        self.fc = nn.Linear(128, classes)

    def forward(self, frames: Tensor | PackedSequence) -> Tensor:
        _, (h, _) = self.lstm(frames)
        logits: Tensor = self.fc(h[-1])
        return logits


def _exit_in_time(model: nn.Module) -> al.Family:
    return al.Family(al.ExitInTime, head=model.get_submodule("fc"))


def _exit_in_depth(model: nn.Module) -> al.Family:
    return al.Family(al.ExitInDepth, head=model.get_submodule("fc"))


def load(zoo: Path, task: Task) -> ZooModel:
    """One input is one recording [1, T, 40] of the test split; the figure is measured on all, packed into one batch."""
    folder = family(zoo, FOLDER)
    weights = arrays(folder / f"weights_{task}.npz")
    test = arrays(folder / "test.npz")
    recordings = test["x"].float().split(test["length"].tolist())
    labels = test[task.removesuffix("s")]

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        logits = model(pack_sequence(list(recordings[::every]), enforce_sorted=False))
        return {"accuracy": float((logits.argmax(1) == labels[::every]).double().mean())}

    def material() -> Material:
        train = arrays(folder / "train.npz")
        seen = [recording[None] for recording in train["x"].float().split(train["length"].tolist())]
        fit = parted(seen, (len(seen),), seed=0)  # the file is sorted by digit
        unseen = parted([recording[None] for recording in recordings], (200, 550, 150), seed=1)
        return Material.of(
            [*fit, *unseen],
            promise="recordings drawn from the 900 that the model never saw, by the six speakers whom it knows; fit "
            "are those that it was trained on",
            loss=disagreement,
            max_loss=0.02,
            families=skipping_and(_exit_in_time, _exit_in_depth),
        )

    return ZooModel(
        name=f"fsdd-{task}",
        model=filled(Classifier(len(weights["fc.bias"])), weights),
        inputs=spread([recording[None] for recording in recordings], 100),
        distance=decisions(task),
        measure=measure,
        material=material,
        known={"accuracy": Figure(ACCURACY[task], 5e-5)},
    )
