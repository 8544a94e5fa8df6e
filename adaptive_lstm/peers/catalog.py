"""Which peers there are, and how to build some of them for one LSTM.

Not among them: LiteRT. Its converter for torch (litert-torch 0.10, the first that admits torch 2.13) brings jax,
transformers and a 70 MB compiler, and wants typing-extensions below 4.13, which shuts out current packages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ..errors import InputError, UnsupportedError
from . import ncnn, openvino, torch_
from . import onnxruntime_ as ort
from .contender import Absent, Builder, Carried, Contender, Engine, Order, Peer


@dataclass(frozen=True)
class Kind:
    """The precision of a peer's weights, and what builds it."""

    precision: str
    builder: Builder


PEERS: Mapping[str, Kind] = {
    "torch": Kind("fp32", torch_.fp32),
    "torch bf16": Kind("bf16", torch_.bf16),
    "torch int8": Kind("int8", torch_.int8),
    "torch compile": Kind("fp32", torch_.compiled),
    "ORT": Kind("fp32", ort.fp32),
    "ORT int8": Kind("int8", partial(ort.int8, per_channel=False)),
    "ORT int8/channel": Kind("int8", partial(ort.int8, per_channel=True)),
    "OpenVINO": Kind("fp32", openvino.fp32),
    "OpenVINO bf16": Kind("bf16", openvino.bf16),
    "OpenVINO int8": Kind("int8", openvino.int8),
    "ncnn": Kind("fp32", ncnn.fp32),
}


def build(
    lstm: nn.LSTM, names: Iterable[str], *, threads: int, inputs: Sequence[Tensor] = ()
) -> tuple[list[Contender], list[Absent]]:
    """Build the named peers of an LSTM; those that cannot be had here are told with the reason.

    Args:
        lstm: any; a copy of its weights is taken, and its layout (batch_first) does not matter to contenders.
        names: of PEERS.
        threads: for everybody but torch, which has one number per process (``bench.pinned_threads``).
        inputs: sequences [1, T, I] that reach this LSTM, for peers that calibrate; without them those are absent.

    Raises:
        InputError: an unknown name, or inputs of another width.
    """
    present: list[Contender] = []
    absent: list[Absent] = []
    width = lstm.proj_size or lstm.hidden_size
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    for name in names:
        try:
            engine = engine_of(lstm, name, threads=threads, inputs=inputs)
        except (ImportError, UnsupportedError) as error:
            absent.append(Absent(name, str(error)))
        except RuntimeError as error:  # of a converter or compiler: it says more than one line
            absent.append(Absent(name, f"{type(error).__name__}: {error}".splitlines()[0]))
        else:
            state = (rows, width), (rows, lstm.hidden_size)
            present.append(Peer(name, PEERS[name].precision, engine, state, lstm.bidirectional))
    return present, absent


def engine_of(lstm: nn.LSTM, name: str, *, threads: int, inputs: Sequence[Tensor] = ()) -> Engine:
    """One peer's engine; arguments as for ``build``.

    Raises:
        InputError: an unknown name, or inputs of another width.
        ImportError: a package is missing.
        UnsupportedError: this stack, this processor or this version cannot run the peer as it should be run.
    """
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}; there are {', '.join(PEERS)}")
    for x in inputs:
        if x.ndim != 3 or x.shape[2] != lstm.input_size:
            raise InputError(f"inputs must be [1, T, {lstm.input_size}] as {lstm} takes them, got {list(x.shape)}")
    return PEERS[name].builder(Order(Carried(_plain(lstm)).eval(), threads, inputs))


def _plain(lstm: nn.LSTM) -> nn.LSTM:
    """A batch-first ``nn.LSTM`` with a copy of the weights, in float32, without gradients."""
    plain = nn.LSTM(
        lstm.input_size,
        lstm.hidden_size,
        lstm.num_layers,
        bias=lstm.bias,
        batch_first=True,
        bidirectional=lstm.bidirectional,
        proj_size=lstm.proj_size,
    )
    plain.load_state_dict(lstm.state_dict())
    return plain.requires_grad_(False).eval()
