"""Remaining life of jet engines (NASA C-MAPSS FD001): 30 cycles of 17 columns -> 2 x 64 -> LayerNorm -> one number."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_lstm.losses import clipped_error

from .base import Figure, Golden, ZooModel, arrays, family, filled, lstm_output, mean_difference, spread
from .material import Material, drawn_parts, settling_in_time, skipping_and

FOLDER = "turbofan_2x64"
CYCLES = 30
LIFE = 130  # cycles: the longest life that the model knows, and the unit of its output
SOON = 30  # cycles: engines with less left need a decision
# A loss of 1 is 30 cycles. The limit of 0.05 is then 1.5 cycles, a tenth of the model's own error.
SCALE, LIMIT = SOON / LIFE, 0.05
CONSTANT = {1, 5, 6, 10, 16, 18, 19}  # sensors that never change
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


def _records(folder: Path) -> dict[str, list[Tensor]]:
    """Every engine's record [T, 17], scaled by the range of the training engines, of "train" and "test"."""
    read = {split: np.loadtxt(folder / f"{split}_FD001.txt") for split in ("train", "test")}
    low, high = read["train"][:, COLUMNS].min(0), read["train"][:, COLUMNS].max(0)

    def engines(table: np.ndarray) -> list[Tensor]:
        scaled = torch.tensor((table[:, COLUMNS] - low) / np.where(high > low, high - low, 1), dtype=torch.float32)
        return [scaled[torch.tensor(table[:, 0] == unit)] for unit in np.unique(table[:, 0])]

    return {split: engines(table) for split, table in read.items()}


def load(zoo: Path) -> ZooModel:
    """One input is the end of the record of one engine [1, 30, 17]."""
    folder = family(zoo, FOLDER)
    engines = torch.stack([record[-CYCLES:] for record in _records(folder)["test"]])
    life = torch.tensor(np.loadtxt(folder / "RUL_FD001.txt")).clamp(max=LIFE)
    golden = arrays(folder / "golden.npz")

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        predicted = torch.cat([model(engine) for engine in engines[::every].split(1)]).double() * LIFE
        left = life[::every]
        return {
            "RMSE": float((predicted - left).square().mean().sqrt()),
            "accuracy": float(((predicted <= SOON) == (left <= SOON)).double().mean()),
        }

    def material() -> Material:
        records = _records(folder)
        parts = (records["train"], records["test"][:25], records["test"][25:75], records["test"][75:])
        return Material.of(
            drawn_parts(parts, CYCLES, (150, 100, 400, 200)),
            promise="30 cycles from anywhere in the records of 50 engines that the model never saw; every part has "
            "engines of its own, fit those of the training",
            loss=clipped_error(SCALE),
            max_loss=LIMIT,
            families=skipping_and(settling_in_time),
        )

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
        material=material,
        known={"RMSE": Figure(15.486, 5e-4), "accuracy": Figure(0.940, 5e-4)},
        decisions={"accuracy": len(life)},
    )
