"""Remaining life of jet engines (NASA C-MAPSS FD001): 30 cycles of 17 columns -> 2 x 64 -> LayerNorm -> one number."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .base import Figure, Golden, ZooModel, arrays, filled, lstm_output, mean_difference, spread

FOLDER = "turbofan_2x64"
CYCLES = 30
LIFE = 130  # cycles: the longest life that the model knows, and the unit of its output
SOON = 30  # cycles: engines with less left need a decision
CONSTANT = {1, 5, 6, 10, 16, 18, 19}  # sensors that tell nothing
# Columns of the files: unit, cycle, three settings, sensors 1 to 21.
COLUMNS = [2, 3, 4, *(4 + sensor for sensor in range(1, 22) if sensor not in CONSTANT)]


class RemainingLife(nn.Module):
    """Cycles [B, 30, 17], scaled to 0..1 -> remaining life [B] in units of 130 cycles."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(17, 64, 2, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.fc = nn.Linear(64, 1)

    def forward(self, cycles: Tensor) -> Tensor:
        life: Tensor = self.fc(self.norm(self.lstm(cycles)[0][:, -1]))
        return life.squeeze(-1)


def _engines(folder: Path) -> Tensor:
    """The last 30 cycles of every test engine [100, 30, 17], scaled by the range of the training engines."""
    train, test = (np.loadtxt(folder / f"{split}_FD001.txt") for split in ("train", "test"))
    low, high = train[:, COLUMNS].min(0), train[:, COLUMNS].max(0)
    scaled = (test[:, COLUMNS] - low) / np.where(high > low, high - low, 1)
    last = [scaled[test[:, 0] == unit][-CYCLES:] for unit in np.unique(test[:, 0])]
    return torch.tensor(np.stack(last), dtype=torch.float32)


def load(zoo: Path) -> ZooModel:
    """One input is the end of the record of one engine [1, 30, 17]."""
    folder = zoo / FOLDER
    engines = _engines(folder)
    life = torch.tensor(np.loadtxt(folder / "RUL_FD001.txt")).clamp(max=LIFE)
    golden = arrays(folder / "golden.npz")

    @torch.no_grad()
    def measure(model: nn.Module) -> Mapping[str, float]:
        predicted = torch.cat([model(engine) for engine in engines.split(1)]).double() * LIFE
        return {
            "RMSE": float((predicted - life).square().mean().sqrt()),
            "accuracy": float(((predicted <= SOON) == (life <= SOON)).double().mean()),
        }

    return ZooModel(
        name="turbofan",
        model=filled(RemainingLife(), arrays(folder / "lstm_model.pt")),
        inputs=spread(list(engines.split(1)), 40),
        distance=mean_difference("life / 130"),
        golden=(
            Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
            # In cycles; one cycle is 1/130 of the output, so this is as strict as 1e-5 there.
            Golden("cycles left", lambda m, x: LIFE * m(x), golden["x"], golden["rul"], tolerance=LIFE * 1e-5),
        ),
        measure=measure,
        known={"RMSE": Figure(15.486, 5e-4), "accuracy": Figure(0.940, 5e-4)},
    )
