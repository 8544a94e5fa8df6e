"""Silero VAD at 16 kHz: spectrum -> four convolutions -> LSTM of 128, a step every 32 ms -> probability of speech.

Rebuilt from the weights in an ONNX file of the package (those that it ships for tinygrad are of another training). The
speech is that of pyannote: meetings, with who speaks when.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from adaptive_lstm.losses import Loss

from . import pyannote
from .base import ZooModel, decisions, family, filled, initializers, spread
from .material import Material, drawn_parts

FOLDER = "silero_vad_128"
FILES = tuple(
    f"silero_vad{kind}" for kind in ("", "_16k_op15", "_16k_sequence", "_half", "_op18_ifless", "_openvino_16k")
)  # of the package, .onnx
RATE, FRAME, CONTEXT = 16_000, 512, 64  # samples: a second, a frame, and those before it that the model sees again
THRESHOLD = 0.5
CHUNK = 156  # frames of an input, 5 s
CALIBRATED = 64  # frames, 2 s
WEIGHTS = "silero_vad_16k_op15"  # of the files, that which has them under names, gates in torch's order
KINDS = ("weight", "bias")
# The parameters here by their names there.
NAMES = {
    "model.stft.forward_basis_buffer": "spectrum.weight",
    **{
        f"model.encoder.{i}.reparam_conv.{kind}": f"encoder.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")
    },
    **{f"model.decoder.rnn.{kind}_{of}": f"lstm.{kind}_{of}_l0" for kind in ("weight", "bias") for of in ("ih", "hh")},
    **{f"model.decoder.decoder.2.{kind}": f"head.{kind}" for kind in ("weight", "bias")},
}


class SpeechDetector(nn.Module):
    """Audio [B, samples], whole frames -> probability of speech in every frame [B, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # cosines, then sines
        shapes = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        self.encoder = nn.ModuleList([nn.Conv1d(i, o, 3, stride=s, padding=1) for i, o, s in shapes])
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Conv1d(128, 1, 1)

    def features(self, audio: Tensor) -> Tensor:
        """[B, samples] -> [B, T, 128]; before the first frame there is silence."""
        frames = pad(audio, (CONTEXT, 0)).unfold(1, CONTEXT + FRAME, FRAME)
        return self.encoded(frames.reshape(-1, CONTEXT + FRAME)).view(*frames.shape[:2], -1)

    def encoded(self, frames: Tensor) -> Tensor:
        """Frames, each after its context [N, 576] -> [N, 128]."""
        x = self.spectrum(pad(frames[:, None], (0, CONTEXT), "reflect"))
        cosines, sines = x.chunk(2, dim=1)
        x = torch.sqrt(cosines**2 + sines**2)
        for layer in self.encoder:
            x = torch.relu(layer(x))
        return x[:, :, 0]

    def forward(self, audio: Tensor) -> Tensor:
        y, _ = self.lstm(self.features(audio))
        return torch.sigmoid(self.head(torch.relu(y).transpose(1, 2)))[:, 0]


def recordings(zoo: Path) -> dict[str, Tensor]:
    """Every meeting excerpt of pyannote [samples], cut to whole frames, by name."""
    paths = sorted(family(zoo, pyannote.FOLDER).glob("*.flac"))
    if not paths:
        raise FileNotFoundError(2, "no recordings", str(family(zoo, pyannote.FOLDER) / "*.flac"))
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Tensor:
    samples, rate = import_module("soundfile").read(path, dtype="float32")
    assert rate == RATE, f"{path} has {rate} samples a second"
    return torch.from_numpy(samples[: len(samples) // FRAME * FRAME])


def _spoken(turns: list[tuple[float, float]], frames: int) -> Tensor:
    """Whether anyone speaks at the middle of every frame [T]."""
    middle = (torch.arange(frames) + 0.5) * FRAME / RATE
    return torch.stack([(middle >= start) & (middle < end) for start, end in turns]).any(0)


def load(zoo: Path) -> ZooModel:
    """One input is 5 s of a meeting [1, 79872]; the figure is that of the frames of all excerpts, speech or not."""
    stored = initializers((family(zoo, FOLDER) / f"{WEIGHTS}.onnx").read_bytes())
    weights = {NAMES[name]: torch.tensor(array) for name, array in stored.items()}
    heard = recordings(zoo)
    differ = decisions("speech frames", lambda p: p > THRESHOLD)

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        turns = pyannote.turns_of(family(zoo, pyannote.FOLDER))
        names = list(heard)[::every]
        got = torch.cat([model(heard[name][None])[0] > THRESHOLD for name in names])
        want = torch.cat([_spoken(turns[name], len(heard[name]) // FRAME) for name in names])
        return {"frame F1": 2 * int((got & want).sum()) / int(got.sum() + want.sum())}

    def material() -> Material:
        framed = [[heard[name].view(-1, FRAME) for name in names] for names in pyannote.PARTS.values()]
        drawn = drawn_parts(framed, CALIBRATED, (80, 60, 400, 200))
        return Material.of(
            [[window.reshape(1, -1) for window in part] for part in drawn],
            promise="2 s from anywhere in the excerpts of a few meetings; nobody speaks in two parts",
            loss=Loss(differ.name, lambda output, dense, target: differ.between(output, dense)),
            max_loss=0.05,
        )

    chunks = [chunk[None] for audio in heard.values() for chunk in audio.split(CHUNK * FRAME)]
    return ZooModel(
        name="silero",
        model=filled(SpeechDetector(), weights),
        inputs=spread([chunk for chunk in chunks if chunk.shape[1] == CHUNK * FRAME], 28),
        distance=differ,
        measure=measure,
        material=material,
    )
