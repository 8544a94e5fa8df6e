"""The contenders on a model: copies of it in which a peer, or this project, runs every LSTM."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm import peers
from adaptive_lstm.calibration import risk
from adaptive_lstm.calibration.steps import PROBES
from adaptive_lstm.cli.demo.run import int8
from adaptive_lstm.errors import AdaptiveLSTMError
from adaptive_lstm.model_io import batch_by_shape
from adaptive_lstm.peers import PEERS, Unavailable
from adaptive_lstm.peers.catalog import build_engine
from adaptive_lstm.peers.contender import Peer
from adaptive_lstm.peers.drop_in import DropInPeer
from adaptive_lstm.policies import parts
from eval.savings import CONFIDENCE, calibrated
from eval.shared.contenders import BYTES
from eval.zoo.base import ZooModel
from eval.zoo.material import Material

OURS = (
    *("exact", "int8", "int8 raw", "int8 bytes", "int8 raw bytes", "int8 dynamic bytes", "int8 fine"),
    *("int8 coarse", "int8 raw coarse", "int8 dynamic coarse", "mixed", "delta", "pruned", "certified"),
)
NAMES = (*PEERS, *OURS)
FINE = al.Quantize("int8", levels=8191, input_levels=8191)
INT8 = {  # raw: the matrix that reads raw features too; dynamic: with a range per timestep; bytes: levels that fit one
    "int8": al.Quantize("int8"),
    "int8 raw": al.Quantize("int8", raw="int8"),
    "int8 bytes": al.Quantize("int8", levels=127, input_levels=127),
    "int8 raw bytes": al.Quantize("int8", raw="int8", levels=127, input_levels=127),
    "int8 dynamic bytes": al.Quantize("int8", raw="int8", raw_range="dynamic", levels=127, input_levels=127),
    "int8 coarse": al.Quantize("int8", levels=64, input_levels=64),
    "int8 raw coarse": al.Quantize("int8", raw="int8", levels=64, input_levels=64),
    "int8 dynamic coarse": BYTES,
    "int8 fine": FINE,  # where h is small
}
TORCH = "torch"  # always takes part: everything is compared with it
# Of the bytes of float32: about a third of the weights in bfloat16, the others in int8, with fine levels of h.
MIXED = 0.35
TAUS = {"int8": (0.005, 0.01, 0.02, 0.05), "int8 bytes": (0.01, 0.02), "int8 raw bytes": (0.01, 0.02)}
FIT, SEARCH = 48, 24  # sequences of a cheap calibration; the test split has as many as its proof needs
SENSITIVITY, PRUNING, BATCH = 16, 32, 8  # sequences
CHANGE = 0.05  # of the output, that compress_within may cause
PATTERN = "block"  # unstructured zeros save bytes, not time
CALIBRATING = 16  # sequences for peers that calibrate
CHECKED = 2  # sequences of every LSTM


Measured = Callable[[], Mapping[str, al.Sensitivity]]


@dataclass(frozen=True, eq=False)
class Entry:
    """One contender on one model.

    model: a copy with every ``nn.LSTM`` replaced; peer: whether another runtime's; precision: of a peer's weights.
    note: a remark for the record.
    """

    name: str
    peer: bool
    precision: str
    model: nn.Module
    note: str = ""

    def lstms(self, names: Iterable[str]) -> list[nn.Module]:
        """The modules in the place of the LSTMs with these names."""
        return [self.model.get_submodule(name) for name in names]

    @property
    def streams(self) -> bool:
        """Whether its policies decide frame by frame: an exit that needs final states does not."""
        adapted = [m for m in self.model.modules() if isinstance(m, al.AdaptiveLSTM)]
        depths = [parts(m.policy).depth_exit for m in adapted]
        return all(depth is None or depth.level == "step" for depth in depths)


def lstms_of(model: nn.Module) -> dict[str, nn.LSTM]:
    """The LSTMs of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.LSTM)}


def field(
    model: ZooModel, chosen: Sequence[str], options: Any, progress: Callable[[str], None] = lambda name: None
) -> tuple[list[Entry], list[Unavailable]]:
    """The chosen of ``NAMES`` on a model, torch always, each verified; and those left out, with the reason.

    options: ``threads``, ``quick``, ``json`` and ``objective`` of the command line.
    progress: called with the name of the next contender.
    """
    entries: list[Entry] = []
    unavailable: list[Unavailable] = []
    reached = peers.inputs_of_lstms(model.model, model.inputs[:CHECKED])
    fitting = peers.inputs_of_lstms(model.model, _fit(model, CALIBRATING))
    for name in dict.fromkeys((TORCH, *(n for n in chosen if n in PEERS))):
        progress(name)
        found = _peer(model.model, name, options.threads, fitting, reached)
        (entries if isinstance(found, Entry) else unavailable).append(found)  # type: ignore[arg-type]
    measured = cache(partial(_sensitivities, model))
    for name in (n for n in chosen if n in OURS):
        progress(name)
        try:
            entries += _ours(model, name, options, measured)
        except AdaptiveLSTMError as error:  # it does not fit this model, or nothing was certified
            unavailable.append(Unavailable(name, f"{type(error).__name__}: {error}".splitlines()[0]))
    return entries, unavailable


def _fit(model: ZooModel, count: int) -> Sequence[Tensor]:
    """Inputs to fit on; a model without such material lends half of its inputs."""
    given = model.material().fit if model.material is not None else model.inputs[::2]
    return given[:count]


# ---------------------------------------------------------------------------------------------------------- peers


def _peer(
    model: nn.Module,
    name: str,
    threads: int,
    fitting: Mapping[str, list[Tensor]],
    reached: Mapping[str, list[Tensor]],
) -> Entry | Unavailable:
    """The model with one peer in it, or the reason: it cannot be built, or has a wrong result."""
    plugged: dict[int, Any] = {}
    for where, lstm in lstms_of(model).items():
        try:
            engine = build_engine(lstm, name, threads=threads, inputs=fitting[where])
        except Exception as error:  # noqa: BLE001 (converters may raise anything)
            return Unavailable(name, f"{type(error).__name__}: {error}".splitlines()[0])
        width, rows = lstm.proj_size or lstm.hidden_size, lstm.num_layers * (1 + lstm.bidirectional)
        state = (rows, width), (rows, lstm.hidden_size)
        contender = Peer(name, PEERS[name].precision, engine, state, lstm.bidirectional)
        try:
            checked = peers.verify_contenders([contender], lstm, reached[where])
        except Exception as error:  # noqa: BLE001 (a peer that fails when it runs is a broken one)
            return Unavailable(name, f"excluded, it fails: {type(error).__name__}: {error}".splitlines()[0])
        if checked.excluded:
            return Unavailable(name, f"{checked.excluded[0].reason} in {where}")
        plugged[id(lstm)] = DropInPeer(lstm, engine, name)
    return Entry(name, True, PEERS[name].precision, deepcopy(model, plugged))


# ----------------------------------------------------------------------------------------------------------- ours


def _ours(model: ZooModel, name: str, options: Any, measured: Measured) -> Iterator[Entry]:
    entry = partial(Entry, peer=False, precision="")
    if name == "exact":
        yield entry("ours exact", model=al.adapt(model.model))
    elif name in INT8:
        fast = al.adapt(model.model)
        al.compress(fast, batch_by_shape(_fit(model, FIT), BATCH), quantize=INT8[name], rounding="compensated")
        yield entry(f"ours {name}", model=fast)
    elif name == "mixed":
        yield entry("ours mixed", model=_mixed(model, measured()))
    elif name == "delta":
        yield from (entry(f"ours {variant}", model=fast) for variant, fast in _delta(model, measured()))
    elif name == "pruned":
        yield entry("ours pruned", **_pruned(model))
    elif name == "certified":
        yield entry("ours certified", **_certified(model, options))


def _sensitivities(model: ZooModel) -> Mapping[str, al.Sensitivity]:
    with torch.enable_grad():
        batches = batch_by_shape(_fit(model, SENSITIVITY), BATCH)
        return al.measure_sensitivities(al.adapt(model.model), batches, probes=PROBES)


def _mixed(model: ZooModel, sensitivities: Mapping[str, al.Sensitivity]) -> nn.Module:
    """The matrices that the output is most sensitive to in bfloat16."""
    fast = al.adapt(model.model)
    for name, lstm in lstms_of(fast).items():
        assert isinstance(lstm, al.AdaptiveLSTM)
        lstm.quantize = al.mixed_precision(sensitivities[name], size=MIXED, base=FINE)
    return fast


def _delta(model: ZooModel, sensitivities: Mapping[str, al.Sensitivity]) -> Iterator[tuple[str, nn.Module]]:
    """int8 with delta columns, thresholds scaled by the output's sensitivity to every column."""
    for base, taus in TAUS.items():
        fast = al.adapt(model.model)
        al.compress(fast, batch_by_shape(_fit(model, FIT), BATCH), quantize=INT8[base], rounding="compensated")
        for tau in taus:
            skipping = deepcopy(fast)
            for name, lstm in lstms_of(skipping).items():
                assert isinstance(lstm, al.AdaptiveLSTM)
                lstm.policy = al.Delta.scaled(sensitivities[name], tau=tau)
            yield f"delta {tau:g}{base.removeprefix('int8')}", skipping


def _pruned(model: ZooModel) -> dict[str, Any]:
    fast = al.adapt(model.model)
    with torch.enable_grad():
        report = al.compress_within(fast, batch_by_shape(_fit(model, PRUNING), BATCH), CHANGE, pattern=PATTERN)
    if all(lstm.replaced is None for lstm in lstms_of(fast).values() if isinstance(lstm, al.AdaptiveLSTM)):
        raise AdaptiveLSTMError(f"no block can be removed within a change of {CHANGE:g} of the output")
    return {"model": fast, "note": f"{report.bytes_after / report.bytes_before:.0%} of the bytes"}


def _certified(model: ZooModel, options: Any) -> dict[str, Any]:
    if model.material is None:
        raise AdaptiveLSTMError("no real sequences to calibrate on")
    material = _cheap(model.material())
    fast = int8(model.model)
    chosen = material.quick() if options.quick else material
    result = calibrated(fast, chosen, options.objective, progress=not options.json)
    if not result.certified:
        raise AdaptiveLSTMError(f"nothing passed at {material.loss.name} <= {material.max_loss:g}")
    result.apply(fast, force=True)  # what loses time must show
    return {"model": fast, "note": f"{result.certificate.policy}; {material.loss.name} <= {material.max_loss:g}"}


def _cheap(material: Material) -> Material:
    """Few sequences to search on, and twice as many to test on as a proof without any loss needs."""
    proof = 2 * risk.needed(material.max_loss, CONFIDENCE, binary=True)
    return material.thinned(FIT, SEARCH, proof, 0, material.max_loss)
