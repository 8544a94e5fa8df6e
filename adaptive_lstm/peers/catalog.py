"""The peers, by name, and how to build them for one LSTM.

ONNX Runtime, OpenVINO, tract, MNN and OpenCV read the same ONNX file. LiteRT is missing on purpose: its converter for
torch (litert-torch 0.10, the first that accepts torch 2.13) needs jax, transformers and a 70 MB compiler, and
typing-extensions below 4.13, which conflicts with current packages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from ..errors import InputError, UnsupportedError
from . import mnn, ncnn, opencv, openvino, torch_, torch_cells, tract
from . import onnxruntime_ as ort
from .contender import Builder, BuildRequest, Contender, Engine, ExplicitStateLSTM, Peer, Unavailable


@dataclass(frozen=True)
class PeerKind:
    """One kind of peer.

    Attributes:
        precision: of its weights.
        builder: builds the engine for one LSTM.
    """

    precision: str
    builder: Builder


PEERS: Mapping[str, PeerKind] = {
    "torch": PeerKind("fp32", torch_.fp32),
    "torch bf16": PeerKind("bf16", torch_.bf16),
    "torch int8": PeerKind("int8", torch_.int8),
    "torch cells": PeerKind("fp32", torch_cells.fp32),
    "torch compile": PeerKind("fp32", torch_.compiled),
    "ORT": PeerKind("fp32", ort.fp32),
    "ORT int8": PeerKind("int8", partial(ort.int8, per_channel=False)),
    "ORT int8/channel": PeerKind("int8", partial(ort.int8, per_channel=True)),
    "OpenVINO": PeerKind("fp32", openvino.fp32),
    "OpenVINO bf16": PeerKind("bf16", openvino.bf16),
    "OpenVINO int8": PeerKind("int8", openvino.int8),
    "ncnn": PeerKind("fp32", ncnn.fp32),
    "tract": PeerKind("fp32", tract.fp32),
    "MNN": PeerKind("fp32", mnn.fp32),
    "MNN int8": PeerKind("int8", mnn.int8),
    "OpenCV": PeerKind("fp32", opencv.fp32),
}


def build(
    lstm: nn.LSTM, names: Iterable[str], *, threads: int, inputs: Sequence[Tensor] = ()
) -> tuple[list[Contender], list[Unavailable]]:
    """Build the named peers of an LSTM.

    Args:
        lstm: any; its weights are copied. Contenders are batch-first whatever its ``batch_first``.
        names: of PEERS.
        threads: for all but torch, which has one number per process (``bench.pinned_threads``).
        inputs: sequences [1, T, I] of this LSTM's inputs; without them peers that calibrate are unavailable.

    Returns:
        Those that could be built, and the others with the reason.

    Raises:
        InputError: an unknown name, or inputs of another width.
    """
    present: list[Contender] = []
    unavailable: list[Unavailable] = []
    width = lstm.proj_size or lstm.hidden_size
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    for name in names:
        try:
            engine = build_engine(lstm, name, threads=threads, inputs=inputs)
        except (ImportError, UnsupportedError) as error:
            unavailable.append(Unavailable(name, str(error)))
        except RuntimeError as error:  # from a converter or compiler: many lines long
            unavailable.append(Unavailable(name, f"{type(error).__name__}: {error}".splitlines()[0]))
        else:
            state = (rows, width), (rows, lstm.hidden_size)
            present.append(Peer(name, PEERS[name].precision, engine, state, lstm.bidirectional))
    return present, unavailable


def build_engine(lstm: nn.LSTM, name: str, *, threads: int, inputs: Sequence[Tensor] = ()) -> Engine:
    """Build one peer's engine; arguments as for ``build``.

    Raises:
        InputError: an unknown name, or inputs of another width.
        ImportError: a package is missing.
        UnsupportedError: the peer cannot run this stack properly on this processor or in this version.
    """
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}, expected one of {', '.join(PEERS)}")
    for x in inputs:
        if x.ndim != 3 or x.shape[2] != lstm.input_size:
            raise InputError(f"inputs must be [1, T, {lstm.input_size}], the inputs of {lstm}, got {list(x.shape)}")
    return PEERS[name].builder(BuildRequest(ExplicitStateLSTM(_plain(lstm)).eval(), threads, inputs))


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
