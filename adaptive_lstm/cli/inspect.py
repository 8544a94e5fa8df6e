"""What an LSTM is made of, what it costs, and which of its uses the native core serves."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from ..compression.compress import compress
from ..errors import AdaptiveLSTMError
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import stream
from ..types import RunStats
from ..weights.precision import PRECISIONS, Precision, Quantize

NATIVE = "native"


@dataclass(frozen=True)
class Anatomy:
    """One LSTM.

    name: its place in the model, "" if it is the model. proj_size: 0 without projection.
    parameters: as `nn.LSTM` counts them.
    bytes: precision -> size of all weight matrices as `Quantize(precision)` runs them, scales included.
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
    fast = AdaptiveLSTM.from_lstm(lstm).eval()
    shape = fast.stack_shape
    sizes: dict[str, int] = {}
    served: dict[str, str] = {}
    for precision in PRECISIONS:
        sizes[precision] = compress(fast, quantize=Quantize(precision)).bytes_after
        served.update(_served(fast, precision))
    return Anatomy(
        name=name,
        input_size=lstm.input_size,
        hidden_size=lstm.hidden_size,
        proj_size=lstm.proj_size,
        layers=lstm.num_layers,
        directions=shape.directions,
        bias=bool(lstm.bias),
        parameters=sum(p.numel() for p in lstm.parameters()),
        bytes=sizes,
        macs_per_step=sum(shape.step_macs(cell) for cell in range(shape.num_cells)),
        served=served,
    )


def _served(fast: AdaptiveLSTM, precision: Precision) -> dict[str, str]:
    zeros = torch.zeros(2, 1, fast.input_size)

    def whole() -> RunStats | None:
        fast(zeros.transpose(0, 1) if fast.batch_first else zeros)
        return fast.last_run

    def steps() -> RunStats | None:
        with stream(fast, batch_size=1) as session:
            session.step(zeros[0])
            return session.stats

    return {f"{precision} sequence": _tried(whole), f"{precision} streaming": _tried(steps)}


def _tried(use: Callable[[], RunStats | None]) -> str:
    try:
        with torch.no_grad():
            stats = use()
    except AdaptiveLSTMError as error:
        return f"no: {error}"
    return NATIVE if stats is None or stats.route.by == "native" else str(stats.route)
