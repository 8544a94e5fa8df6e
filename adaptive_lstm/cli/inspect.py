"""`adaptive-lstm inspect`: list the LSTMs of a model, their sizes and cost, and what executes them."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from ..compression.compress import compress
from ..errors import AdaptiveLSTMError
from ..execution.backend import backend_info
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import stream
from ..types import BackendInfo, RunStats
from ..weights.precision import PRECISIONS, Precision, Quantize
from .help import MODEL_OR_WEIGHTS
from .model_file import load_lstms
from .output import show

DESCRIPTION = f"""\
List every nn.LSTM of a model: its shape, parameters, bytes at each precision, multiply-accumulates per step, and
whether the native core executes whole sequences and streaming on this machine.

{MODEL_OR_WEIGHTS}"""

EXAMPLES = """\
  adaptive-lstm inspect encoder.safetensors
  adaptive-lstm inspect my_project/model.py:build --json"""


@dataclass(frozen=True)
class LSTMSummary:
    """One LSTM.

    Attributes:
        name: its place in the model, "" if it is the model.
        input_size, hidden_size, layers, directions, bias: as for `nn.LSTM`.
        proj_size: 0 without projection.
        parameters: their number, as `nn.LSTM` counts them.
        bytes: precision -> bytes of all weight matrices in it, scales included.
        macs_per_step: multiply-accumulates of one dense step of one sequence.
        executed_by: use -> "native", or why the native core cannot execute it.
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
    executed_by: dict[str, str]

    def __str__(self) -> str:
        projected = f" projected to {self.proj_size}" if self.proj_size else ""
        directions = ", both directions" if self.directions == 2 else ""
        sizes = ", ".join(f"{precision} {size / 1e6:.2f} MB" for precision, size in self.bytes.items())
        uses = "\n".join(f"  {use:<21}{answer}" for use, answer in self.executed_by.items())
        return (
            f"{self.name or 'the model'}: LSTM {self.input_size} -> {self.hidden_size}{projected}, "
            f"{self.layers} layer{'s' if self.layers > 1 else ''}{directions}{'' if self.bias else ', no bias'}\n"
            f"  parameters           {self.parameters:,}\n"
            f"  size                 {sizes}\n"
            f"  multiply-accumulates {self.macs_per_step:,} per step\n"
            f"{uses}"
        )


@dataclass(frozen=True)
class ModelSummary:
    """The LSTMs of a model, and the machine that would execute them."""

    lstms: list[LSTMSummary]
    backend: BackendInfo

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        here = self.backend
        compiler = f", built with {here.compiler}" if here.compiler else ""
        machine = f"this machine: {here.backend} backend, {here.isa}, {here.threads} threads{compiler}"
        return "\n\n".join([*map(str, self.lstms), machine])


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("model", metavar="MODEL", help="file.py:factory or a file of weights")


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    found = [summarize(name, lstm) for name, lstm in load_lstms(options.model).items()]
    show(ModelSummary(found, backend_info()), as_json=options.json)


def summarize(name: str, lstm: nn.LSTM) -> LSTMSummary:
    """Describe an LSTM; each use runs two steps of zeros to find out what executes it."""
    fast = AdaptiveLSTM.from_lstm(lstm).eval()
    shape = fast.stack_shape
    sizes: dict[str, int] = {}
    executed_by: dict[str, str] = {}
    for precision in PRECISIONS:
        sizes[precision] = compress(fast, quantize=Quantize(precision)).bytes_after
        executed_by.update(_executed_by(fast, precision))
    return LSTMSummary(
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
        executed_by=executed_by,
    )


def _executed_by(fast: AdaptiveLSTM, precision: Precision) -> dict[str, str]:
    zeros = torch.zeros(2, 1, fast.input_size, dtype=torch.float32, device="cpu")

    def whole() -> RunStats | None:
        fast(zeros.transpose(0, 1) if fast.batch_first else zeros)
        return fast.last_run

    def steps() -> RunStats | None:
        with stream(fast, batch_size=1) as session:
            session.step(zeros[0])
            return session.stats

    return {f"{precision} sequence": _backend_of(whole), f"{precision} streaming": _backend_of(steps)}


def _backend_of(use: Callable[[], RunStats | None]) -> str:
    try:
        with torch.no_grad():
            stats = use()
    except AdaptiveLSTMError as error:
        return f"no: {error}"
    return "native" if stats is None else str(stats.route)
