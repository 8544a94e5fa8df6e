"""What a demo needs to know about a model: the model, three disjoint sets of inputs, and its measure of quality.

Letters: T time, I input features, N sequences, K outputs of the model; everything is batch first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ...calibration.splits import Splits
from ...losses import Loss
from ...policies import Family
from ..sequence_file import LabelledSequence


class SequenceModel(nn.Module):
    """A model [N, T, I] -> [N, K] whose stacked, batch-first LSTM is its attribute `lstm`."""

    lstm: nn.LSTM


@dataclass(frozen=True)
class DemoTask:
    """One trained model and its data.

    Attributes:
        title: what the model does, for people.
        unit: what one of its inputs is, in the plural.
        model: the original, in eval mode.
        fit_inputs: [F, T, I] unlabelled inputs for sensitivity and translators.
        search_inputs: [S, T, I] unlabelled inputs to choose a policy on.
        test_inputs: [N, T, I] inputs for the reported numbers and the certificate; nothing is fitted on them.
        score_name, score: outputs [N, K] for `test_inputs` -> quality, 0 to 1, higher is better.
        agreement_name, agreement: outputs [M, K], those of the original [M, K] -> 1.0 if they are equal.
        loss, max_loss, confidence: what is to be certified, as for `calibrate`.
        families: of policies to search for an adapted copy of `model`; they must work in streams.
        caution: what the certificate does not cover, in a sentence; "" if its own words are enough.
        shown: [T, I] one of the test inputs, for the picture of the columns that are sent.
        picture: [R, T] `shown` as a person would look at it.
    """

    title: str
    unit: str
    model: SequenceModel
    fit_inputs: Tensor
    search_inputs: Tensor
    test_inputs: Tensor
    score_name: str
    score: Callable[[Tensor], float]
    agreement_name: str
    agreement: Callable[[Tensor, Tensor], float]
    loss: Loss
    max_loss: float
    confidence: float
    families: Callable[[SequenceModel], Sequence[Family]]
    caution: str
    shown: Tensor
    picture: Tensor

    @property
    def splits(self) -> Splits[LabelledSequence]:
        """The inputs one by one, without targets, for `calibrate`."""
        parts = (self.fit_inputs, self.search_inputs, self.test_inputs)
        return Splits(*([(one, None) for one in part.split(1)] for part in parts))
