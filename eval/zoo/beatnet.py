"""BeatNet: frames of a log filterbank -> convolution -> linear -> 2 x 150 -> beat, downbeat or neither; streaming."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, relu

from .base import Distance, ZooModel, arrays, family, filled

FOLDER = "extras_textgenrnn_beatnet"
FRAMES, CLIPS = 100, 24  # 50 frames per second
BANDS = 272

State = tuple[Tensor, Tensor]


class BeatNet(nn.Module):
    """Frames [B, T, 272] and the state after those before -> logits [B, 3, T], and the new state.

    The original keeps the state on the module; here the caller does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 2, kernel_size=10)
        self.linear0 = nn.Linear(262, 150)
        self.lstm = nn.LSTM(150, 150, 2, batch_first=True)
        self.linear = nn.Linear(150, 3)

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        x = max_pool1d(relu(self.conv1(frames.reshape(-1, 1, BANDS))), 2)
        x = self.linear0(x.flatten(1)).reshape(*frames.shape[:2], -1)
        y, state = self.lstm(x, state)
        return self.linear(y).transpose(1, 2), state


def _activation(outputs: Tensor, dense: Tensor) -> float:
    return float((outputs.softmax(1) - dense.softmax(1)).abs().mean())


def load(zoo: Path) -> ZooModel:
    """One input is 2 s of frames [1, 100, 272]: random, smoothed over time.

    No audio with annotated beats was found for this model, so it shows that such a model runs and stays close to the
    original, and nothing about the quality of its task.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(CLIPS, FRAMES, BANDS, generator=generator)
    smooth = 0.5 + 0.1 * noise.cumsum(1) / torch.arange(1, FRAMES + 1).sqrt()[:, None]
    return ZooModel(
        name="beatnet",
        model=filled(BeatNet(), arrays(family(zoo, FOLDER) / "beatnet_model_1_weights.pt")),
        inputs=relu(smooth).split(1),
        distance=Distance("difference of activations", _activation),
    )
