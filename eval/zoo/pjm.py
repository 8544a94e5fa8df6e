"""Load of five power grids (PJM): 90 hours of five features -> 2 x 256 -> relu -> the next hour."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_lstm.losses import clipped_error

from .base import Figure, Golden, ZooModel, arrays, family, filled, lstm_output, mean_difference, spread
from .material import Material, drawn_parts, ranges, settling_in_time, skipping_and

FOLDER = "pjm_energy_2x256"
HOURS = 90
TEST_SHARE, TESTED = 0.1, 600  # of the windows of a zone, its last ones; about so many of them
# Symmetric mean absolute percentage error per zone; the model was trained on the older part of AEP and DOM.
SMAPE = {"AEP": 1.086, "DOM": 1.388, "FE": 1.566, "NI": 1.135, "PJMW": 1.485}
# A loss of 1 is 5 % of a zone's range. The limit of 0.05 is then 0.25 % of it, about half of the model's own error.
SCALE, LIMIT = 0.05, 0.05
NEVER_SEEN = ("FE", "NI", "PJMW")


class LoadForecast(nn.Module):
    """Hours [B, 90, 5], each feature scaled to 0..1 -> load of the next hour [B], scaled alike."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 256, 2, batch_first=True)
        self.fc = nn.Linear(256, 1)

    def forward(self, hours: Tensor) -> Tensor:
        load: Tensor = self.fc(torch.relu(self.lstm(hours)[0][:, -1]))
        return load.squeeze(-1)


def _features(path: Path) -> np.ndarray:
    """Per hour, in order: megawatts, hour, weekday, month, day of the year; [hours, 5]."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [line.split(",") for line in file.read().splitlines()[1:]]
    rows.sort(key=lambda row: row[0])  # the files are not in order
    time = np.array([row[0] for row in rows], dtype="datetime64[h]")
    day, month, year = (time.astype(f"datetime64[{unit}]") for unit in "DMY")
    columns = [
        np.array([float(row[1]) for row in rows]),
        (time - day).astype(int),
        (day.astype(int) + 3) % 7,  # days since 1970-01-01, a Thursday; Monday is 0
        (month - year).astype(int) + 1,
        (day - year).astype(int) + 1,
    ]
    return np.stack(columns, axis=1)


def _scaled(path: Path) -> np.ndarray:
    features = _features(path)
    low, high = features.min(0), features.max(0)
    scaled: np.ndarray = (features - low) / (high - low)
    return scaled


def _windows(path: Path) -> tuple[Tensor, Tensor, float, float]:
    """Test windows [N, 90, 5] of a zone and the hour that follows each [N], scaled; then smallest and largest load."""
    features = _features(path)
    low, high = features.min(0), features.max(0)
    scaled = (features - low) / (high - low)
    count = len(scaled) - HOURS
    tested = int(TEST_SHARE * count)
    starts = np.arange(count - tested, count)[:: max(1, tested // TESTED)]
    hours = np.stack([scaled[start : start + HOURS] for start in starts])
    return torch.tensor(hours, dtype=torch.float32), torch.tensor(scaled[starts + HOURS, 0]), low[0], high[0]


def load(zoo: Path) -> ZooModel:
    """One input is one window [1, 90, 5] of a zone that the model never saw."""
    folder = family(zoo, FOLDER)
    files = {zone: folder / f"{zone}_hourly.csv.gz" for zone in SMAPE}
    golden = arrays(folder / "golden.npz")

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        figures = {}
        for zone, path in files.items():
            hours, target, low, high = _windows(path)
            hours, target = hours[::every], target[::every]
            predicted = torch.cat([model(part) for part in hours.split(64)])
            got, want = (low + (high - low) * load.double() for load in (predicted, target))
            figures[f"sMAPE {zone} %"] = 100 * float(((got - want).abs() / ((got + want) / 2)).mean())
        return figures

    def material() -> Material:
        zones = [torch.tensor(_scaled(files[zone]), dtype=torch.float32) for zone in NEVER_SEEN]
        parts = zip(*(ranges(zone, (4, 2, 3, 1)) for zone in zones), strict=True)
        return Material.of(
            drawn_parts(parts, HOURS, (150, 100, 400, 200)),
            promise="90 hours from anywhere in three zones that the model never saw; the parts follow each other in "
            "time, fresh is the newest tenth",
            loss=clipped_error(SCALE),
            max_loss=LIMIT,
            families=skipping_and(settling_in_time),
        )

    return ZooModel(
        name="pjm",
        model=filled(LoadForecast(), arrays(folder / "weights.npz")),
        inputs=tuple(x for zone in NEVER_SEEN for x in spread(list(_windows(files[zone])[0].split(1)), 12)),
        distance=mean_difference("scaled load"),
        golden=(
            Golden("LSTM", lstm_output(), golden["x"], golden["lstm_out"]),
            Golden("forecast", lambda m, x: m(x), golden["x"], golden["y"]),
        ),
        measure=measure,
        material=material,
        known={f"sMAPE {zone} %": Figure(value, 5e-4) for zone, value in SMAPE.items()},
    )
