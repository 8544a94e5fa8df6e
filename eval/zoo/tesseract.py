"""Tesseract's English reader of lines: convolution -> LSTM up every column of 48 -> 96 -> 96 from the right -> 192.

Rebuilt from the int8 weights of eng.traineddata. Sentences of the zoo are drawn as lines of 36 pixels in 5 typefaces.
Tesseract also rounds the values between the layers to int8, and fills what lies outside the picture with noise.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from adaptive_lstm.losses import Loss
from adaptive_lstm.weights.gate_order import in_torch_order

from . import nnsplit
from .base import Figure, ZooModel, decisions, family, filled, spread
from .material import Material, parted
from .traineddata import GATES, Layer, characters, network

FOLDER = "tesseract_eng_48_96_96_192"
FILE = "eng.traineddata"
HEIGHT, SHRUNK = 36, 3  # pixels of a line; and how many of them, each way, become one
LSTMS = {"columns": "Lfys48", "lstm1": "Lfx96", "lstm2": "Lrx96", "lstm3": "Lfx192"}  # here -> in the file
FONTS = ("DejaVuSerif", "DejaVuSans", "STIXGeneral", "DejaVuSans-Bold", "DejaVuSerif-Italic")
SHORTEST, LONGEST = 20, 60  # characters of a line
LINES = 800
EVERY = 8  # of which one is read for the figure
# As this model reads the lines drawn here; a letter more or less with another version of the library that draws them.
KNOWN = Figure(0.027, 0.003)


class LineReader(nn.Module):
    """Pictures of lines [B, 36, W], black -1, white 1 -> logits [B, W // 3, 111]; the last is the blank of CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 16, 3, padding=1)
        self.columns = nn.LSTM(16, 48, batch_first=True)
        self.lstm1 = nn.LSTM(48, 96, batch_first=True)
        self.lstm2 = nn.LSTM(96, 96, batch_first=True)  # from the right to the left
        self.lstm3 = nn.LSTM(96, 192, batch_first=True)
        self.output = nn.Linear(192, 111)

    def forward(self, lines: Tensor) -> Tensor:
        x = max_pool2d(torch.tanh(self.convolution(lines[:, None])), SHRUNK)  # [B, 16, 12, T]
        y, _ = self.columns(x.permute(0, 3, 2, 1).flatten(0, 1))
        x = y[:, -1].view(len(lines), -1, y.shape[2])  # [B, T, 48]
        x, _ = self.lstm1(x)
        x = self.lstm2(x.flip(1))[0].flip(1)
        x, _ = self.lstm3(x)
        logits: Tensor = self.output(x)
        return logits


def weights_of(root: Layer) -> dict[str, Tensor]:
    """The parameters of ``LineReader`` from the network of a file."""
    (window,) = root.find("ConvNL").matrices
    (output,) = root.find("Output").matrices
    # In a window of 3 x 3 the file goes down the first column, then the next.
    kernel = window.weights[:, :-1].reshape(-1, 1, 3, 3).transpose(0, 1, 3, 2)
    found = {"convolution.weight": kernel, "convolution.bias": window.weights[:, -1]}
    found |= {"output.weight": output.weights[:, :-1], "output.bias": output.weights[:, -1]}
    for name, stored in LSTMS.items():
        layer = root.find(stored)
        gates = in_torch_order(np.concatenate([gate.weights for gate in layer.matrices]), GATES)
        found |= {f"{name}.weight_ih_l0": gates[:, : layer.inputs], f"{name}.weight_hh_l0": gates[:, layer.inputs : -1]}
        found |= {f"{name}.bias_ih_l0": gates[:, -1], f"{name}.bias_hh_l0": np.zeros_like(gates[:, -1])}
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in found.items()}


def drawn_line(text: str, font: str) -> Tensor:
    """A line of text in black on white [1, 36, W]."""
    folder = Path(import_module("matplotlib").get_data_path()) / "fonts" / "ttf"
    image_of, draw, fonts = (import_module(f"PIL.{name}") for name in ("Image", "ImageDraw", "ImageFont"))
    face = fonts.truetype(str(folder / f"{font}.ttf"), 26)
    image = image_of.new("L", (int(face.getlength(text)) + 20, HEIGHT), 255)
    draw.Draw(image).text((10, HEIGHT - 10), text, font=face, fill=0, anchor="ls")
    return torch.from_numpy(np.asarray(image, dtype=np.float32))[None] / 127.5 - 1


def sentences(path: Path) -> list[str]:
    """The first sentences of a file that fit on a line, each once, in plain ASCII."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in dict.fromkeys(lines) if SHORTEST <= len(line) <= LONGEST and line.isascii()][:LINES]


def read(logits: Tensor, texts: Mapping[int, str]) -> str:
    """The text of a line [1, T, 111]: the likeliest outputs, repeated ones once, blanks left out."""
    best = torch.unique_consecutive(logits[0].argmax(-1)).tolist()
    return "".join(texts.get(code, "") for code in best)


def edits(got: str, want: str) -> int:
    """Least number of characters to insert, leave out or change."""
    row = list(range(len(want) + 1))
    for i, have in enumerate(got):
        left, row[0] = row[0], i + 1
        for j, wish in enumerate(want):
            left, row[j + 1] = row[j + 1], min(left + (have != wish), row[j] + 1, row[j + 1] + 1)
    return row[-1]


def load(zoo: Path) -> ZooModel:
    """One input is a line [1, 36, W]; the figure is the share of characters that are read wrongly."""
    content = (family(zoo, FOLDER) / FILE).read_bytes()
    root, _ = network(content)
    texts = characters(content)
    said = sentences(family(zoo, nnsplit.FOLDER) / nnsplit.TEXT["en"])
    differ = decisions("outputs")

    def lines(wanted: Sequence[int]) -> list[Tensor]:
        return [drawn_line(said[i], FONTS[i % len(FONTS)]) for i in wanted]

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        asked = range(0, len(said), EVERY * every)
        wrong = [edits(read(model(x), texts), said[i]) for i, x in zip(asked, lines(asked), strict=True)]
        return {"character error": sum(wrong) / sum(len(said[i]) for i in asked)}

    def material() -> Material:
        return Material.of(
            parted(lines(range(len(said))), (80, 60, 400, 200), seed=0),
            promise="sentences of one text, drawn as lines in five typefaces",
            loss=Loss(differ.name, lambda output, dense, target: differ.between(output, dense)),
            max_loss=0.05,
        )

    return ZooModel(
        name="tesseract",
        model=filled(LineReader(), weights_of(root)),
        inputs=spread(lines(range(0, len(said), 16)), 24),
        distance=differ,
        measure=measure,
        material=material,
        known={"character error": KNOWN},
        decisions={"character error": sum(map(len, said[::EVERY]))},
    )
