"""What an LSTM is made of, what it costs, and which of its uses the native core serves."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from .compress import compress
from .errors import AdaptiveLSTMError
from .quantize import PRECISIONS, Quantize
from .runtime import AdaptiveLSTM
from .stream import stream
from .types import RunStats, StackShape

NATIVE = "native"
BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Anatomy:
    """One LSTM.

    name: its place in the model, "" if it is the model. proj_size: 0 without projection.
    parameters: as `nn.LSTM` counts them.
    bytes: precision -> size of the weights as `Quantize(precision)` stores them: the first input matrix stays in fp32,
    int8 has one fp32 scale per row, and the two biases of torch are merged into one in fp32.
    macs_per_step: multiply-accumulates of one dense step of one sequence.
    served: use -> "native", or why something else has to serve it.
    """

    name: str
    input_size: int
    hidden_size: int
    proj_size: int
    layers: int
    directions: int
    bias: bool
    parameters: int
    bytes: dict[str, int]
    macs_per_step: int
    served: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """The fields, for a JSON record."""
        return asdict(self)

    def __str__(self) -> str:
        projected = f" projected to {self.proj_size}" if self.proj_size else ""
        directions = ", both directions" if self.directions == 2 else ""
        sizes = ", ".join(f"{precision} {size / 1e6:.2f} MB" for precision, size in self.bytes.items())
        uses = "\n".join(f"  {use:<21}{answer}" for use, answer in self.served.items())
        return (
            f"{self.name or 'the model'}: LSTM {self.input_size} -> {self.hidden_size}{projected}, "
            f"{self.layers} layer{'s' if self.layers > 1 else ''}{directions}{'' if self.bias else ', no bias'}\n"
            f"  parameters           {self.parameters:,}\n"
            f"  size                 {sizes}\n"
            f"  multiply-accumulates {self.macs_per_step:,} per step\n"
            f"{uses}"
        )


def inspect(name: str, lstm: nn.LSTM) -> Anatomy:
    """Sizes and costs of `lstm`, and who serves it, found out by trying each use on two steps of zeros."""
    shape = StackShape(lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.proj_size, lstm.bidirectional)
    return Anatomy(
        name=name,
        input_size=lstm.input_size,
        hidden_size=lstm.hidden_size,
        proj_size=lstm.proj_size,
        layers=lstm.num_layers,
        directions=shape.directions,
        bias=bool(lstm.bias),
        parameters=sum(p.numel() for p in lstm.parameters()),
        bytes={precision: _bytes(lstm, shape, Quantize(precision)) for precision in PRECISIONS},
        macs_per_step=sum(shape.step_macs(pair) for pair in range(shape.pairs)),
        served=_served(lstm),
    )


def _bytes(lstm: nn.LSTM, shape: StackShape, settings: Quantize) -> int:
    total = 4 * 4 * shape.hidden_size * shape.pairs if lstm.bias else 0
    for pair in range(shape.pairs):
        for kind in ("weight_ih", "weight_hh", "weight_hr")[: 3 if shape.proj_size else 2]:
            precision = settings.of(shape, kind, pair)
            rows, columns = getattr(lstm, f"{kind}_{shape.name(pair)}").shape
            total += rows * (columns * BYTES[precision] + (4 if precision == "int8" else 0))
    return total


@torch.no_grad()
def _served(lstm: nn.LSTM) -> dict[str, str]:
    zeros = torch.zeros(2, 1, lstm.input_size)
    answers = {}
    for precision in PRECISIONS:
        fast = AdaptiveLSTM.from_lstm(lstm).eval()
        if precision != "fp32":
            compress(fast, quantize=Quantize(precision))

        def whole(fast: AdaptiveLSTM = fast) -> RunStats | None:
            fast(zeros.transpose(0, 1) if fast.batch_first else zeros)
            return fast.last_run

        def steps(fast: AdaptiveLSTM = fast) -> RunStats | None:
            with stream(fast, batch_size=1) as session:
                session.step(zeros[0])
                return session.stats

        answers[f"{precision} sequence"] = _tried(whole)
        answers[f"{precision} streaming"] = _tried(steps)
    return answers


def _tried(use: Callable[[], RunStats | None]) -> str:
    try:
        stats = use()
    except AdaptiveLSTMError as error:
        return f"no: {error}"
    return (stats and stats.fallback) or NATIVE
