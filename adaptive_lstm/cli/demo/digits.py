"""The embedded demo: a stacked LSTM that reads a handwritten digit through a slit moving across the picture.

The 8 x 8 picture is smoothly enlarged to 16 x 64 and read column by column, left to right; the class is taken after the
last column. Neighbouring columns look alike, so most inputs and hidden units change little from one step to the next,
which makes skipping worthwhile.

Data: the handwritten digits of scikit-learn, which are the test part of "Optical Recognition of Handwritten Digits" by
E. Alpaydin and C. Kaynak (UCI Machine Learning Repository, 1998, doi:10.24432/C50P49), licensed CC BY 4.0. The
model was trained on 1047 of its 1797 pictures (`eval/train_demo.py`). Of the others 300 are kept here without labels,
to fit and to choose on, and 450 with labels, to report and to certify.
"""

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...losses import disagreement
from ...policies import Delta, ExitInTime, Family
from .task import DemoTask, SequenceModel

ROWS, STEPS = 16, 64  # input features, and columns of the enlarged picture
HIDDEN, LAYERS, CLASSES = 160, 2, 10
FIT = 150  # of the pictures without labels; the others are for choosing
LOSS, MAX_LOSS, CONFIDENCE = disagreement, 0.02, 0.95
HEAD = "fc"
INK = 16  # the darkest pixel value of the data set

MODEL_FILE = Path(__file__).with_name("digits.safetensors")
IMAGES_FILE = Path(__file__).with_name("digits_images.safetensors")


class DigitReader(SequenceModel):
    """[N, 64, 16] columns of enlarged pictures -> [N, 10] logits, from the state after the last column."""

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


def read_columns(images: Tensor) -> Tensor:
    """[N, 8, 8] pictures, 0 to 16 -> [N, 64, 16] sequences of columns of the enlarged pictures, 0 to 1."""
    enlarged = interpolate(images[:, None].float() / INK, size=(ROWS, STEPS), mode="bilinear", align_corners=True)
    return enlarged[:, 0].transpose(1, 2).contiguous()


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
    unlabelled, test_inputs = read_columns(images.fit), read_columns(images.test)

    def accuracy(logits: Tensor) -> float:
        return float((logits.argmax(1) == images.labels).double().mean())

    def same_decisions(logits: Tensor, dense: Tensor) -> float:
        return float((logits.argmax(1) == dense.argmax(1)).double().mean())

    return DemoTask(
        title=f"handwritten digits, {LAYERS} x {HIDDEN} LSTM, {STEPS} steps of {ROWS} pixels",
        unit="pictures",
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
        shown=test_inputs[0],
        picture=test_inputs[0].T,
    )


def families(model: SequenceModel) -> list[Family]:
    """Skip the columns of [x ; h] that changed little, and exit before the last columns of the picture."""
    return [Family(Delta), Family(ExitInTime, head=model.get_submodule(HEAD))]
