"""Static post-training compression, applied once, in place, on an adapted model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import InputError
from .quantize import Quantize, column_scale, quantize_stack
from .ranges import input_ranges
from .runtime import AdaptiveLSTM
from .weights import shape_of


@dataclass(frozen=True)
class MatrixReport:
    """One weight matrix before and after.

    ``name``: module and parameter; ``precision``: what it became; ``bytes_before`` in float32, ``bytes_after`` with its
    scales; ``error``: Frobenius norm of the change divided by that of the matrix.
    """

    name: str
    precision: str
    bytes_before: int
    bytes_after: int
    error: float


@dataclass(frozen=True)
class CompressReport:
    """What ``compress`` did, matrix by matrix."""

    matrices: tuple[MatrixReport, ...]

    @property
    def bytes_before(self) -> int:
        """Bytes of all matrices in float32."""
        return sum(m.bytes_before for m in self.matrices)

    @property
    def bytes_after(self) -> int:
        """Bytes of all matrices as they are executed now."""
        return sum(m.bytes_after for m in self.matrices)

    def __str__(self) -> str:
        width = max(len(m.name) for m in self.matrices)
        lines = [
            f"{m.name:{width}}  {m.precision}  {m.bytes_before:>10,} -> {m.bytes_after:>10,} bytes  error {m.error:.2e}"
            for m in self.matrices
        ]
        share = self.bytes_after / self.bytes_before
        return "\n".join(
            [
                *lines,
                f"{'total':{width}}        {self.bytes_before:>10,} -> {self.bytes_after:>10,} bytes  ({share:.0%})",
            ]
        )


def compress(model: nn.Module, inputs: Iterable[Any] | None = None, *, quantize: Quantize) -> CompressReport:
    """Execute the LSTMs of an adapted model in lower precision, from now on and in place.

    The parameters stay as they are, so ``compress`` again with other settings starts from the original, and
    ``Quantize()`` undoes it. Data is needed for one thing only: a first input matrix in int8.

    Args:
        model: an adapted model, or one ``AdaptiveLSTM``.
        inputs: batches, each as the model takes it: a tensor, a ``PackedSequence``, or a tuple of arguments. One tensor
            alone is one batch. The model runs over them, as it is, if ``quantize`` puts the input matrix of a first
            layer in int8 and has no ``raw_scale``: every LSTM then gets its own, from the largest features seen.
            Show what the model will meet: features beyond twice that are cut off.
        quantize: the precision of every matrix.

    Raises:
        InputError: no adapted LSTM, or settings or inputs that do not fit one; nothing is changed then.
        NonFiniteError: an LSTM is given NaN or infinity by the inputs.
    """
    lstms = {name: m for name, m in model.named_modules() if isinstance(m, AdaptiveLSTM)}
    if not lstms:
        raise InputError("the model holds no AdaptiveLSTM; convert it first: fast = adaptive_lstm.adapt(model)")
    if not isinstance(quantize, Quantize):
        raise InputError(
            f"quantize: got {type(quantize).__name__}, expected adaptive_lstm.Quantize, for example Quantize('int8')"
        )
    chosen = _with_scales(model, lstms, inputs, quantize)
    rows = []
    for name, lstm in lstms.items():
        tensors, shape = lstm.executed(), shape_of(lstm)
        for pair, (before, after) in enumerate(zip(tensors, quantize_stack(tensors, shape, chosen[name]), strict=True)):
            kinds = [("weight_ih", before.w_ih, after.w_ih), ("weight_hh", before.w_hh, after.w_hh)]
            if before.w_hr is not None and after.w_hr is not None:
                kinds.append(("weight_hr", before.w_hr, after.w_hr))
            for kind, w, matrix in kinds:
                original = w.detach().to("cpu", torch.float64).numpy()
                norm = float(np.linalg.norm(original)) or 1.0
                rows.append(
                    MatrixReport(
                        name=f"{name}.{kind}_{shape.name(pair)}".lstrip("."),
                        precision=matrix.precision,
                        bytes_before=4 * original.size,
                        bytes_after=matrix.nbytes,
                        error=float(np.linalg.norm(matrix.dequantized() - original)) / norm,
                    )
                )
        lstm.quantize = chosen[name]
    return CompressReport(tuple(rows))


def _with_scales(
    model: nn.Module, lstms: dict[str, AdaptiveLSTM], inputs: Iterable[Any] | None, quantize: Quantize
) -> dict[str, Quantize]:
    """The settings of every LSTM, checked, with the scales of raw features where they are needed."""
    lacking = [name for name, lstm in lstms.items() if quantize.lacks_scale(shape_of(lstm))]
    chosen = dict.fromkeys(lstms, quantize)
    if inputs is not None and lacking:
        for lstm in lstms.values():
            quantize.check_names(shape_of(lstm))  # before a long run
        for name, largest in input_ranges(model, inputs, lacking).items():
            first = lstms[name].executed()[: shape_of(lstms[name]).directions]
            w = torch.cat([t.w_ih.detach().to("cpu", torch.float32) for t in first]).numpy()
            chosen[name] = replace(quantize, raw_scale=tuple(column_scale(largest, w).tolist()))
    for name, lstm in lstms.items():
        chosen[name].check(shape_of(lstm))
    return chosen
