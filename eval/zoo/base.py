"""A model of the zoo: a real torch model, real inputs, stored outputs from elsewhere, and its task figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from .material import Material

Model = TypeVar("Model", bound=nn.Module)

FETCHED = Path(__file__).resolve().parents[2] / "build" / "zoo"
"""Where ``eval.zoo fetch`` puts models unless it is told otherwise."""


@dataclass(frozen=True)
class Distance:
    """Distance of outputs from those of the original model: 0 if they are equal, 1 if nothing is left.

    ``between(outputs, dense)``: two tensors of the model's output shape; the mean over everything in them.
    """

    name: str
    between: Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Golden:
    """The output of a part of the model for an input, as stored with the weights.

    ``part(model, input)`` runs that part of the original or of an adapted copy; ``expected``: its output.
    ``tolerance``: largest absolute difference.
    """

    name: str
    part: Callable[[nn.Module, Tensor], Tensor]
    input: Tensor
    expected: Tensor
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Figure:
    """A task figure of the dense fp32 model from its SOURCE.txt, and the tolerance with which it is reproduced."""

    value: float
    tolerance: float


class Measure(Protocol):
    """Task figures of a model, by name."""

    def __call__(self, model: nn.Module, every: int = 1) -> Mapping[str, float]:
        """``every``: only every n-th item of the labelled data, or the first n-th part of a stream, to save time."""


def nothing_to_measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
    """The ``measure`` of a model without labelled data."""
    del model, every
    return {}


@dataclass(frozen=True)
class ZooModel:
    """A pretrained model, in eval mode, and everything that is needed to judge an adapted copy of it.

    Args:
        name: unique in the zoo.
        model: the original. It takes one tensor; where it returns a tuple, the first element is the output.
        inputs: real inputs, each a batch of one.
        distance: between the outputs of a copy and those of the original.
        golden: stored arrays.
        measure: the task figures of the original or of a copy on the labelled data, by name. It reads that data when it
            is called, and runs without gradients.
        known: the figures in SOURCE.txt.
        decisions: the number of decisions behind a figure that is a rate, where one may be more than a hundredth of it.
        material: sequences to calibrate on; None: there are no real ones. It reads data when it is called.
    """

    name: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    distance: Distance
    golden: tuple[Golden, ...] = ()
    measure: Measure = nothing_to_measure
    known: Mapping[str, Figure] = field(default_factory=dict)
    decisions: Mapping[str, int] = field(default_factory=dict)
    material: Callable[[], Material] | None = None

    def prepared(self, *, quick: bool = False) -> Material:
        """Its sequences, or a few of them; the model must have some."""
        assert self.material is not None, f"{self.name} has no sequences"
        return self.material().quick() if quick else self.material()

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> list[Tensor]:
        """The outputs of the original, or of an adapted copy, for every input."""
        return [first(model(x)) for x in self.inputs]

    def compare(self, outputs: list[Tensor], dense: list[Tensor]) -> float:
        """Mean distance between the outputs of a copy and those of the original."""
        return float(np.mean([self.distance.between(y, d) for y, d in zip(outputs, dense, strict=True)]))


def first(output: Any) -> Tensor:
    """The output of a model that may return its state too."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def family(zoo: Path, folder: str) -> Path:
    """The subfolder of a family: of the zoo, or of ``FETCHED`` if it is only there."""
    return FETCHED / folder if (FETCHED / folder).is_dir() and not (zoo / folder).is_dir() else zoo / folder


def arrays(path: Path) -> dict[str, Tensor]:
    """All tensors of an .npz file, or of a torch checkpoint that holds nothing but tensors."""
    if path.suffix == ".pt":
        checkpoint: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint
    with np.load(path, allow_pickle=False) as stored:
        return {name: torch.tensor(stored[name]) for name in stored.files}


def initializers(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays that the main graph of an ONNX file holds, by name."""
    onnx = import_module("onnx")
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(content).graph.initializer}


def golden_of(path: Path, golden: Callable[[Mapping[str, Tensor]], tuple[Golden, ...]]) -> tuple[Golden, ...]:
    """Golden arrays made from a file; none where it is missing, as beside weights from ``eval.zoo fetch``."""
    return golden(arrays(path)) if path.exists() else ()


def filled(model: Model, weights: Mapping[str, Tensor]) -> Model:
    """The model in eval mode, with every one of its parameters taken from ``weights``, which must hold nothing else."""
    model.load_state_dict(weights)
    return model.eval()


def lstm_output(name: str = "lstm") -> Callable[[nn.Module, Tensor], Tensor]:
    """The part of a model that is one of its LSTMs, for ``Golden``."""
    return lambda model, x: first(model.get_submodule(name)(x))


def spread(items: list[Tensor], count: int) -> tuple[Tensor, ...]:
    """``count`` of the items, evenly over all of them."""
    return tuple(items[i] for i in np.linspace(0, len(items) - 1, count).astype(int))


# ------------------------------------------------------------------------------------------------------ distances


def _one_minus_cosine(outputs: Tensor, dense: Tensor) -> float:
    return 1 - float(cosine_similarity(outputs.double(), dense.double(), dim=-1).mean())


def _share_that_differs(decide: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], float]:
    return lambda outputs, dense: float((decide(outputs) != decide(dense)).double().mean())


COSINE = Distance("1 - cosine", _one_minus_cosine)


def decisions(name: str, decide: Callable[[Tensor], Tensor] = lambda logits: logits.argmax(-1)) -> Distance:
    """The share of decisions that are not those of the original; ``decide``: outputs [..., C] -> decisions [...]."""
    return Distance(f"{name} that differ", _share_that_differs(decide))


def mean_difference(name: str) -> Distance:
    """The mean absolute difference of outputs that are quantities between 0 and 1."""
    return Distance(f"difference of {name}", lambda outputs, dense: float((outputs - dense).abs().mean()))
