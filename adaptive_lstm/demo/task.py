"""What a demo needs to know about a model: the model, inputs to fit on, inputs to report on, and how to judge them.

Letters: T time, I input features, N sequences, K outputs of the model; everything is batch first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


class SequenceModel(nn.Module):
    """A model [N, T, I] -> [N, K] whose stacked, batch-first LSTM has the name `lstm`."""

    lstm: nn.LSTM


@dataclass(frozen=True)
class Task:
    """One trained model and the data it is shown on.

    title: what the model does, for people.
    model: the original, in eval mode.
    fit_inputs: [F, T, I] unlabelled inputs for everything that is fitted or chosen; disjoint from `test_inputs`.
    test_inputs: [N, T, I] inputs that only the reported numbers see.
    score: outputs [N, K] for `test_inputs` -> quality, 0 to 1, higher is better; named by `score_name`.
    agreement: outputs [M, K], those of the original [M, K] -> 1.0 if equal; named by `agreement_name`.
    min_agreement: a threshold that agrees less than this on the fit inputs is not used.
    shown: [T, I] one of the test inputs, for the picture of the columns that moved.
    picture: [R, T] `shown` as a person would look at it.
    """

    title: str
    model: SequenceModel
    fit_inputs: Tensor
    test_inputs: Tensor
    score_name: str
    score: Callable[[Tensor], float]
    agreement_name: str
    agreement: Callable[[Tensor, Tensor], float]
    min_agreement: float
    shown: Tensor
    picture: Tensor
