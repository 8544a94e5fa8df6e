"""The embedded demo: a stacked LSTM that watches a strip of paper pass under a slit, and reads the digit written on it.

A strip is five times as long as a digit is wide. The paper is blank but for the digit, which begins somewhere in the
left half; its brightness differs from strip to strip, and the sensor is noisy. One column of pixels comes at a time,
and the class is taken after the last one. Most of a strip needs little work: blank paper looks as it did the column
before, and once the digit has passed, the answer is known. Speech with its pauses, and sensors that mostly rest, are
alike.

Digits: those of scikit-learn, which are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin
and C. Kaynak (UCI Machine Learning Repository, 1998, doi:10.24432/C50P49), licensed CC BY 4.0. The model was trained on
1047 of its 1797 pictures (`eval/train_demo.py`). Of the others 300 are kept here without labels, to fit and to choose
on, and 450 with labels, to report and to certify.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...losses import disagreement
from ...policies import ExitInTime, Family, SkipTimesteps
from .task import DemoTask, SequenceModel

ROWS, WIDTH = 16, 64  # pixels of the enlarged picture: input features, and columns
STEPS = 320  # columns of a strip
STARTS = (16, 144)  # of the digit: the first column it may begin at, and the last
PAPER, NOISE = (0.8, 1.0), 0.01  # brightness of paper, lowest and highest, and standard deviation of the sensor's noise
HIDDEN, LAYERS, CLASSES = 160, 2, 10
FIT = 100  # of the pictures without labels; the others are for choosing
LOSS, MAX_LOSS, CONFIDENCE = disagreement, 0.03, 0.95
HEAD = "fc"
PATIENCE = 3  # checks in a row that must be sure of the class: a half-written 6 looks like another digit for a while
SHOWN = 3  # the test strip in the figure
INK = 16  # the darkest pixel value of the data set

MODEL_FILE = Path(__file__).with_name("digits.safetensors")
IMAGES_FILE = Path(__file__).with_name("digits_images.safetensors")


class DigitReader(SequenceModel):
    """[N, T, 16] columns of strips -> [N, 10] logits, from the state after the last column."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(ROWS, HIDDEN, LAYERS, batch_first=True)
        self.fc = nn.Linear(HIDDEN, CLASSES)

    def forward(self, columns: Tensor) -> Tensor:
        outputs, _ = self.lstm(columns)
        logits: Tensor = self.fc(outputs[:, -1])
        return logits


@dataclass(frozen=True)
class Images:
    """Pictures as in the data set, uint8 from 0 (paper) to 16 (ink).

    Attributes:
        fit: [300, 8, 8] without labels, to fit and to choose on; not trained on.
        test: [450, 8, 8] to report on.
        labels: [450] classes of `test`, uint8.
    """

    fit: Tensor
    test: Tensor
    labels: Tensor


def strips(images: Tensor, starts: Tensor, steps: int, noise: float, generator: torch.Generator) -> Tensor:
    """Pictures on strips of paper.

    Args:
        images: [N, 8, 8] from 0 (paper) to 16 (ink).
        starts: [N] the column at which each begins.
        steps: columns of a strip.
        noise: standard deviation of the sensor's noise.
        generator: of the brightness of paper and the noise.

    Returns:
        [N, steps, 16] brightness, column by column.
    """
    ink = torch.zeros(len(images), steps, ROWS)
    enlarged = interpolate(images[:, None].float() / INK, size=(ROWS, WIDTH), mode="bilinear", align_corners=True)
    ink[torch.arange(len(images))[:, None], starts[:, None] + torch.arange(WIDTH)] = enlarged[:, 0].transpose(1, 2)
    low, high = PAPER
    paper = low + (high - low) * torch.rand(len(images), 1, 1, generator=generator)
    return paper * (1 - ink) + noise * torch.randn(ink.shape, generator=generator)


def read_strips(images: Tensor, seed: int) -> Tensor:
    """[N, 8, 8] pictures, 0 to 16 -> [N, 320, 16] strips, each with one of them at a random place."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(STARTS[0], STARTS[1] + 1, (len(images),), generator=generator)
    return strips(images, starts, STEPS, NOISE, generator)


def load_images() -> Images:
    """The pictures that ship with the package."""
    return Images(**load(IMAGES_FILE.read_bytes()))


def load_model() -> DigitReader:
    """The trained model that ships with the package, in eval mode and fp32; the file holds fp16 to be small."""
    model = DigitReader()
    model.load_state_dict(load(MODEL_FILE.read_bytes()))
    return model.eval()


def load_task() -> DemoTask:
    """The embedded model and pictures as a `DemoTask`: accuracy on digits that it has never seen."""
    images = load_images()
    unlabelled, test_inputs = read_strips(images.fit, seed=1), read_strips(images.test, seed=2)

    def accuracy(logits: Tensor) -> float:
        return float((logits.argmax(1) == images.labels).double().mean())

    def same_decisions(logits: Tensor, dense: Tensor) -> float:
        return float((logits.argmax(1) == dense.argmax(1)).double().mean())

    return DemoTask(
        title=f"handwritten digits on strips of paper, {LAYERS} x {HIDDEN} LSTM, {STEPS} columns of {ROWS} pixels",
        unit="strips",
        model=load_model(),
        fit_inputs=unlabelled[:FIT],
        search_inputs=unlabelled[FIT:],
        test_inputs=test_inputs,
        score_name="accuracy",
        score=accuracy,
        agreement_name="same class",
        agreement=same_decisions,
        loss=LOSS,
        max_loss=MAX_LOSS,
        confidence=CONFIDENCE,
        families=families,
        caution="",
        shown=test_inputs[SHOWN],
        picture=test_inputs[SHOWN].T,
    )


def families(model: SequenceModel) -> list[Family]:
    """Exit once the digit is known, and hold the stack over blank paper."""
    return [Family(ExitInTime, head=model.get_submodule(HEAD), patience=PATIENCE), Family(SkipTimesteps)]
