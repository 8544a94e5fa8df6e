"""The report of a compression: every weight matrix, and every LSTM as a whole, before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..analysis.sensitivity import Sensitivity
from ..bench import Ratio, spread
from ..codec import short_repr
from ..execution.native_stack import Packed
from ..types import StackShape
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices, Matrix
from .output_error import expected_squared_change

SHOWN = 16  # matrices, and LSTMs, in words
MIN_IDLE_ZEROS = 0.05  # share of zeros that save no time, from which the report mentions them


@short_repr
@dataclass(frozen=True)
class MatrixReport:
    """One weight matrix before and after.

    ``name``: module and parameter.
    ``precision``: "fp32", "bf16" or "int8".
    ``sparsity``: share of zeros.
    ``macs_before``: all weights, each a multiply-accumulate of a dense timestep.
    ``macs``: weights that are not zero.
    ``bytes_before``: in float32.
    ``bytes_after``: in its precision with its scales, as a bitmask and the non-zero values if that is smaller.
    ``error``: Frobenius norm of the change divided by that of the matrix.
    ``output_error``: expected root mean square change of the model's output at one timestep by a change of this matrix
    alone, in units of the output (``output_error.expected_squared_change``); None: no sensitivity was measured.
    ``form``: how the native core stores it: "dense", "blocks" (blocks of zeros are left out) or "bitmask" (a bitmask
    and the non-zero values, chosen where that is faster); None: the native core does not run it.
    ``columns_left_out``: columns that are not read, because they are all zero or belong to pruned units.
    ``idle_zeros``: share of zeros in a dense matrix that the kernels read like any other weight.
    """

    name: str
    precision: str
    sparsity: float
    macs_before: int
    macs: int
    bytes_before: int
    bytes_after: int
    error: float
    output_error: float | None
    form: str | None
    columns_left_out: int
    idle_zeros: float

    @property
    def execution(self) -> str:
        """The form in words."""
        left_out = f", {self.columns_left_out} columns left out" if self.columns_left_out else ""
        return f"{self.form}{left_out}" if self.form else "not native"


@short_repr
@dataclass(frozen=True)
class LSTMReport:
    """One LSTM before and after.

    ``name``: of the module.
    ``matrices``: its weight matrices in torch's order.
    ``bytes_packed``: size of the native core's weights, with padding and tables; None: it does not run this LSTM.
    ``seconds``: median time of one timestep at batch 1 with the threads of the process and nothing skipped, (in float32
    as it was, as it is executed now); streamed, or for a bidirectional stack in a short sequence. None as above.
    ``faster``: how many times as fast it is now, from rounds timed side by side; it knows whether it may be quoted.
    ``bytes_beside``: of what is no matrix, in float32: (biases, both of torch as one; what pruned units give).
    """

    name: str
    matrices: tuple[MatrixReport, ...]
    bytes_packed: int | None
    seconds: tuple[float, float] | None
    faster: Ratio | None
    bytes_beside: tuple[int, int]

    @property
    def speed(self) -> str:
        """Before and now, in words."""
        if self.seconds is None or self.faster is None:
            return "not native"
        if not self.faster.meaningful:
            return f"the machine is too busy to time a step: {self.faster} times as fast"
        before, after = self.seconds
        return f"a step takes {before * 1e6:.1f} -> {after * 1e6:.1f} us, {spread(self.faster)} times as fast"


@dataclass(frozen=True, repr=False)
class CompressReport:
    """The weights that LSTMs execute, compared with their parameters.

    ``lstms``: one report per LSTM.
    ``remark``: what a reader must know beside the numbers, such as a search that was ended early.
    """

    lstms: tuple[LSTMReport, ...]
    remark: str = ""

    @property
    def matrices(self) -> tuple[MatrixReport, ...]:
        """The matrices of all LSTMs."""
        return tuple(m for lstm in self.lstms for m in lstm.matrices)

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights in float32."""
        return sum(m.bytes_before for m in self.matrices) + sum(lstm.bytes_beside[0] for lstm in self.lstms)

    @property
    def bytes_after(self) -> int:
        """Bytes of all weights in their precision, as a bitmask and the non-zero values where that is smaller.

        A file of ``save(weights=True)`` is larger by its header, some 2,000 bytes, and by what its policy holds.
        ``save`` alone stores pruned and compensated weights in float32, so that the precision may still be changed.
        """
        return sum(m.bytes_after for m in self.matrices) + sum(sum(lstm.bytes_beside) for lstm in self.lstms)

    @property
    def sparsity(self) -> float:
        """Share of zeros in all matrices."""
        before = sum(m.macs_before for m in self.matrices)
        return 1 - sum(m.macs for m in self.matrices) / before if before else 0.0

    def as_dict(self) -> dict[str, object]:
        """The fields, for a JSON record; ratios that must not be quoted have no median."""
        found = asdict(self)
        for one, lstm in zip(found["lstms"], self.lstms, strict=True):
            if lstm.faster is not None:
                one["faster"] = lstm.faster.as_dict()
        return found

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        width = max([len(m.name) for m in self.matrices] + [5])
        for m in self.matrices[:SHOWN]:
            output = "" if m.output_error is None else f"  of the output {m.output_error:.1e}"
            yield (
                f"{m.name:{width}}  {m.precision}  {m.sparsity:4.0%} zeros  {m.bytes_before:>10,} -> "
                f"{m.bytes_after:>10,} bytes  error {m.error:.1e}{output}  {m.execution}"
            )
        if len(self.matrices) > SHOWN:
            yield f"... and {len(self.matrices) - SHOWN} more matrices (.matrices has all)"
        beside = sum(sum(lstm.bytes_beside) for lstm in self.lstms)
        yield f"{'biases':{width}}  fp32{'':12}{beside:>14,} bytes"
        share = self.bytes_after / self.bytes_before
        yield (
            f"{'total':{width}}        {self.sparsity:4.0%} zeros  {self.bytes_before:>10,} -> "
            f"{self.bytes_after:>10,} bytes  ({share:.0%})"
        )
        for lstm in self.lstms[:SHOWN]:
            if lstm.seconds is not None:
                yield f"{lstm.name or 'the LSTM'}: {lstm.speed}; {lstm.bytes_packed:,} bytes packed"
        if self.remark:
            yield self.remark
        if idle := [m.name for m in self.matrices if m.idle_zeros >= MIN_IDLE_ZEROS]:
            more = f" and {len(idle) - SHOWN} more" if len(idle) > SHOWN else ""
            yield (
                f"unstructured zeros save no time in {', '.join(idle[:SHOWN])}{more}: at this size, precision and "
                "share of zeros, or on this machine, the bitmask form is not faster, and the kernels read whole blocks "
                "(projections always)"
            )


def matrix_reports(
    name: str,
    shape: StackShape,
    original: Sequence[CellTensors],
    matrices: Sequence[CellMatrices],
    sensitivity: Sensitivity | None,
    packed: Sequence[Sequence[Packed]] | None,
) -> tuple[MatrixReport, ...]:
    """One entry per matrix of a stack, in torch's order; ``packed``: how the native core holds them, if it does."""
    found = []
    for cell, (before, after) in enumerate(zip(original, matrices, strict=True)):
        kinds = [("weight_ih", before.w_ih, after.w_ih), ("weight_hh", before.w_hh, after.w_hh)]
        if before.w_hr is not None and after.w_hr is not None:
            kinds.append(("weight_hr", before.w_hr, after.w_hr))
        for index, (kind, w, matrix) in enumerate(kinds):
            held = packed[cell][index] if packed else None
            old = w.detach().cpu().double().clone().numpy()
            change = matrix.dequantized() - old
            zeros = int((matrix.dequantized() == 0).sum())
            output_error = None
            if sensitivity is not None and kind != "weight_hr":
                output_error = math.sqrt(max(expected_squared_change(sensitivity, cell, kind, change), 0.0))
            found.append(
                MatrixReport(
                    name=f"{name}.{kind}_{shape.name(cell)}".lstrip("."),
                    precision=matrix.precision,
                    sparsity=zeros / old.size,
                    macs_before=old.size,
                    macs=old.size - zeros,
                    bytes_before=4 * old.size,
                    bytes_after=stored_bytes(matrix),
                    error=float(np.linalg.norm(change)) / (float(np.linalg.norm(old)) or 1.0),
                    output_error=output_error,
                    form=held.form if held else None,
                    columns_left_out=old.shape[1] - held.columns if held else 0,
                    idle_zeros=_idle_zeros(matrix.values) if held and held.form == "dense" else 0.0,
                )
            )
    return tuple(found)


def bytes_beside(cells: Sequence[CellMatrices]) -> tuple[int, int]:
    """Bytes of a stack's biases, and of what its pruned units give, as ``save(weights=True)`` stores them."""
    pruned = 0
    for cell in cells:
        if cell.live is not None and cell.constant is not None:
            bits, kept = (cell.live.size + 7) // 8, 4 * int(np.count_nonzero(cell.constant))
            pruned += bits + min(cell.constant.nbytes, bits + kept)
    return sum(cell.bias.nbytes for cell in cells), pruned


def stored_bytes(matrix: Matrix) -> int:
    """Bytes of a matrix with its scales, as a bitmask and the non-zero values if that is smaller."""
    values = matrix.values
    kept = int(np.count_nonzero(values)) * values.itemsize + (values.size + 7) // 8
    return matrix.nbytes - values.nbytes + min(values.nbytes, kept)


def _idle_zeros(values: np.ndarray) -> float:
    """Share of zeros in rows and columns that are not all zero."""
    used = values != 0
    rows, columns = int(used.any(1).sum()), int(used.any(0).sum())
    return (rows * columns - int(used.sum())) / values.size
