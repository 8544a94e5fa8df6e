"""What a compression did: every weight matrix, and every LSTM as a whole, before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..analysis.sensitivity import Sensitivity
from ..execution.native_stack import Packed
from ..types import FloatArray, StackShape
from ..weights.layout import CellTensors
from ..weights.matrices import CellMatrices, Matrix

WORTH_TELLING = 0.05  # share of zeros that save no time, of which the report in words speaks


@dataclass(frozen=True)
class MatrixReport:
    """One weight matrix before and after.

    ``name``: module and parameter; ``precision``: what it became; ``sparsity``: share of zeros; ``macs``: weights that
    are no zeros, so many multiply-accumulates a dense timestep needs at least (``macs_before``: all of them);
    ``bytes_before``: in float32; ``bytes_after``: so many describe it, with its scales, zeros as a bit each where that
    is smaller (``save`` keeps pruned weights in float32, so that the precision may still be changed); ``error``:
    Frobenius norm of the change divided by that of the matrix; ``output_error``: expected root mean square change of
    the model's output by a change of this matrix alone at one timestep, in units of the output,
    sqrt(sum_r F_r d_r^T E[z z^T] d_r) with the F_r of ``Sensitivity`` and the changes d_r of row r; None where no
    sensitivity was measured; ``form``: how the native core executes it, "dense", "blocks" (of zeros are left out) or
    "bitmask" (zeros that lie anywhere are not read; chosen where that saves time), None where it does not run it;
    ``columns_left_out``: so many are all zeros, or belong to pruned units, and are not read; ``idle_zeros``: of dense
    matrices, share of zeros that save bytes on paper only, because the kernels read them like any other weight.
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


@dataclass(frozen=True)
class LSTMReport:
    """One LSTM: its matrices; the bytes that the native core packed, with padding and tables (None: it does not run).

    ``seconds``: of one timestep at batch 1 with the threads of the process (streamed; in both directions: of a short
    sequence) with nothing skipped, in float32 as it was, and as it is executed now; None where the native core does
    not run it.
    """

    name: str
    matrices: tuple[MatrixReport, ...]
    bytes_packed: int | None
    seconds: tuple[float, float] | None


@dataclass(frozen=True)
class CompressReport:
    """What ``compress`` did, LSTM by LSTM."""

    lstms: tuple[LSTMReport, ...]

    @property
    def matrices(self) -> tuple[MatrixReport, ...]:
        """The matrices of all LSTMs."""
        return tuple(m for lstm in self.lstms for m in lstm.matrices)

    @property
    def bytes_before(self) -> int:
        """Bytes of all matrices in float32."""
        return sum(m.bytes_before for m in self.matrices)

    @property
    def bytes_after(self) -> int:
        """Bytes of all matrices in their precision, where zeros take a bit each if that is smaller.

        ``save`` keeps pruned and compensated weights in float32 all the same.
        """
        return sum(m.bytes_after for m in self.matrices)

    @property
    def sparsity(self) -> float:
        """Share of zeros in all matrices."""
        before = sum(m.macs_before for m in self.matrices)
        return 1 - sum(m.macs for m in self.matrices) / before if before else 0.0

    def as_dict(self) -> dict[str, object]:
        """The fields, for a JSON record."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        width = max([len(m.name) for m in self.matrices] + [5])
        for m in self.matrices:
            output = "" if m.output_error is None else f"  of the output {m.output_error:.1e}"
            yield (
                f"{m.name:{width}}  {m.precision}  {m.sparsity:4.0%} zeros  {m.bytes_before:>10,} -> "
                f"{m.bytes_after:>10,} bytes  error {m.error:.1e}{output}  {m.execution}"
            )
        share = self.bytes_after / self.bytes_before
        yield (
            f"{'total':{width}}        {self.sparsity:4.0%} zeros  {self.bytes_before:>10,} -> "
            f"{self.bytes_after:>10,} bytes  ({share:.0%})"
        )
        for lstm in self.lstms:
            if lstm.seconds is not None:
                before, after = lstm.seconds
                yield (
                    f"{lstm.name or 'the LSTM'}: a step takes {before * 1e6:.1f} -> {after * 1e6:.1f} us "
                    f"({before / after:.1f}x), {lstm.bytes_packed:,} bytes packed"
                )
        if idle := [m.name for m in self.matrices if m.idle_zeros >= WORTH_TELLING]:
            yield (
                f"zeros that lie anywhere save no time in {', '.join(idle)}: at this size, precision and share of "
                "zeros, or on this machine, the bitmask form is not faster, and the kernels read whole blocks "
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
            old = w.detach().cpu().double().numpy()
            change = matrix.dequantized() - old
            zeros = int((matrix.dequantized() == 0).sum())
            output_error = None
            if sensitivity is not None and kind != "weight_hr":
                output_error = _output_error(sensitivity, cell, kind, change)
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


def stored_bytes(matrix: Matrix) -> int:
    """Bytes of a matrix with its scales, where zeros take a bit each if that is smaller."""
    values = matrix.values
    kept = int(np.count_nonzero(values)) * values.itemsize + (values.size + 7) // 8
    return matrix.nbytes - values.nbytes + min(values.nbytes, kept)


def _idle_zeros(values: np.ndarray) -> float:
    """Share of zeros that lie in rows and columns which hold something else too."""
    used = values != 0
    rows, columns = int(used.any(1).sum()), int(used.any(0).sum())
    return (rows * columns - int(used.sum())) / values.size


def _output_error(sensitivity: Sensitivity, cell: int, kind: str, change: FloatArray) -> float:
    width = sensitivity.shape.input_width(cell)
    part = slice(None, width) if kind == "weight_ih" else slice(width, None)
    moments = sensitivity.moments[cell][part, part]
    per_row = np.einsum("rc,rc->r", change @ moments, change)
    return float(np.sqrt(max(sensitivity.rows[cell] @ per_row, 0.0)))
