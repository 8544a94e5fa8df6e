"""Values of a wrong type, for every argument of the public API: an error of the package that says what it got."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.codec import digest
from adaptive_lstm.model_io import first_tensor
from adaptive_lstm.types import StackShape

from ..support.small_task import Classifier

JUNK: tuple[Any, ...] = (
    *(None, 5, -1, True, "x", b"x", (), [1], {}, float("nan"), float("inf"), 2**70, object(), int, lambda *a: None),
    *(np.zeros(3), torch.zeros(2), np.array(3), torch.tensor(0.5), np.array("x"), np.bool_(True), np.float32("nan")),
    *(2**31, -(2**63), 1e308, 1j, set(), slice(3), [None], "x" * 10**5, nn.Linear(2, 2)),
)
SEQUENCES = [torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(n)) for n in range(40)]


@functools.cache
def original() -> Any:
    return Classifier(2).eval()


def fast() -> Any:
    return al.adapt(original())


def assign(name: str) -> Callable[..., None]:
    return lambda value: setattr(fast().lstm, name, value)


def small() -> Any:
    return al.from_gates([np.ones((3, 8)), np.ones((2, 8)), np.ones(8)], "ifco")


@functools.cache
def sensitivity() -> Any:
    """Of the small one."""
    return al.measure_sensitivity(small(), torch.zeros(4, 1, 3))


def threads(n: Any) -> None:
    """Set them, and put back the default."""
    try:
        al.set_num_threads(n)
    finally:
        al.set_num_threads(None)


def pool() -> Any:
    """With one stream."""
    made = al.StreamPool(small(), 2)
    made.open()
    return made


MADE = (fast, original, sensitivity)  # arguments that are made for each call
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "adapt": (al.adapt, {"model": None}),
    "load": (al.load, {"path": "missing", "model": None, "policies": ()}),
    "load_certificate": (al.load_certificate, {"path": "missing", "policies": ()}),
    "restore": (al.restore, {"model": None}),
    "report": (al.report, {"model": None}),
    "compress": (al.compress, {"model": fast, "prune": None, "quantize": None, "rounding": "nearest"}),
    "compress_within": (
        al.compress_within,
        {
            "model": fast, "inputs": SEQUENCES[:4], "change": None, "progress": False, "pattern": "x", "quantize": None,
            "seconds": 1e-6,
        },
    ),
    "measure_sensitivity": (al.measure_sensitivity, {"model": fast, "inputs": (), "probes": 0, "seed": None}),
    "stream": (al.stream, {"lstm": None, "batch_size": 1}),
    "map_sequences": (
        lambda **given: list(al.map_sequences(**given)),
        {
            "model": fast, "sequences": (), "batch_tokens": 9, "threads": 1, "layout": "equal", "window": 2,
        },
    ),
    "warm_up": (al.warm_up, {"model": fast, "shapes": ()}),
    "audit": (
        al.audit,
        {
            "model": fast, "original": original, "max_loss": 0.1, "confidence": 0.9, "rate": 0.1, "fallbacks": (),
            "loss": al.losses.disagreement, "resume": None, "seed": None,
        },
    ),
    "calibrate": (
        al.calibrate,
        {
            "model": fast, "sequences": SEQUENCES, "loss": al.losses.disagreement, "max_loss": 0.4, "confidence": 0.8,
            "objective": "x", "use": "sequence", "min_gain": 0.05, "seconds": 0.01,
        },
    ),
    "calibrate a run": (
        al.calibrate,
        {
            "model": fast, "sequences": SEQUENCES, "loss": al.losses.disagreement, "max_loss": 0.4, "confidence": 0.8,
            "conditional": False, "progress": False, "output": first_tensor, "seconds": 1e-3,
        },
    ),
    "Splits": (
        lambda **given: al.calibrate(
            fast(), al.Splits(**given), loss=al.losses.disagreement, max_loss=0.4, confidence=0.8, seconds=1e-3
        ),
        {"fit": SEQUENCES[:5], "search": SEQUENCES[5:15], "test": SEQUENCES[15:]},
    ),
    "Delta": (al.Delta, {"h": 0.1, "x": 0.1}),
    "SkipTimesteps": (al.SkipTimesteps, {"x_share": 0.1, "h": 0.1, "mode": "hold_state", "cap": 3}),
    "HoldLayers": (al.HoldLayers, {"x_share": 0.1, "h": 0.1, "mode": "hold_state", "cap": 3}),
    "ExitInTime": (al.ExitInTime, {"head": len, "threshold": 0.9, "measure": "max", "check_every": 2, "patience": 1}),
    "ExitInDepth": (al.ExitInDepth, {"head": len, "threshold": 0.9, "measure": "max", "level": "step"}),
    "LinearHead": (al.LinearHead, {"weight": np.ones((3, 9)), "bias": np.zeros(3), "activation": "softmax"}),
    "Prune": (al.Prune, {"pattern": "unit", "sparsity": 0.3, "saliency": "auto", "block": (4, 4), "gamma": None}),
    "Quantize": (
        al.Quantize,
        {"precision": "int8", "raw": "int8", "raw_range": "static", "raw_scale": None, "levels": 1, "matrices": {}},
    ),
    "clipped_error": (al.losses.clipped_error, {"scale": 1.0}),
    "from_lstm": (al.AdaptiveLSTM.from_lstm, {"lstm": None}),
    "Combined": (al.Combined, {}),
    "set_num_threads": (threads, {"n": None}),
    "fit_translators": (
        al.fit_translators, {"model": fast, "inputs": SEQUENCES[:4], "lstm": None, "buckets": 2, "ridge": 0.1},
    ),
    "from_gates": (
        al.from_gates,
        {
            "arrays": [np.ones((3, 8)), np.ones((2, 8)), np.ones(8)], "order": "ifco", "bidirectional": False,
            "batch_first": True,
        },
    ),
    "StreamPool": (
        lambda **given: al.StreamPool(small(), **given),
        {"capacity": 2, "backlog": 2, "max_batch": None, "idle_timeout": None, "clock": time.monotonic},
    ),
    "push": (lambda **given: pool().push(**given), {"stream": 0, "frames": np.zeros(3)}),
    "push_each": (lambda **given: pool().push_each(**given), {"streams": [0], "frames": np.zeros((1, 3))}),
    "tick_into": (lambda y: pool().tick_into(y), {"y": torch.zeros(2, 6)}),
    "snapshot": (lambda stream: pool().snapshot(stream), {"stream": 0}),
    "restore snapshot": (lambda snapshot: pool().restore(snapshot), {"snapshot": b""}),
    "step": (lambda **given: al.stream(small()).step(**given), {"x": torch.zeros(1, 3), "rows": None}),
    "run": (lambda **given: al.stream(small()).run(**given), {"x": torch.zeros(1, 2, 3), "done": None}),
    "reset": (lambda rows: al.stream(small()).reset(rows), {"rows": None}),
    "state": (lambda state: setattr(al.stream(small()), "state", state), {"state": None}),
    "select": (lambda rows: al.stream(small()).state.select(rows), {"rows": [0]}),
    "expand": (lambda n: al.stream(small()).state.expand(n), {"n": 1}),
    "warm_up rows": (lambda rows: al.warm_up(small(), [(rows, 1)]), {"rows": 1}),
    "warm_up timesteps": (lambda timesteps: al.warm_up(small(), [(1, timesteps)]), {"timesteps": 1}),
    "mixed_precision size": (al.mixed_precision, {"sensitivity": sensitivity, "size": 0.5, "base": None}),
    "mixed_precision error": (al.mixed_precision, {"sensitivity": sensitivity, "error": 0.5}),
    "columns": (
        lambda **given: sensitivity().columns(**given), {"site": al.Site(StackShape(3, 2, 1), 0, "x"), "gamma": 0.5},
    ),
    "column_curves": (lambda site: sensitivity().column_curves(site), {"site": al.Site(StackShape(3, 2, 1), 0, "x")}),
    "activity": (lambda policy: sensitivity().activity(policy), {"policy": al.Delta()}),
    "expected_rates": (
        lambda rates: setattr(small(), "plan", dataclasses.replace(small().plan, expected_rates=rates)),
        {"rates": None},
    ),
    "precision": (lambda precision: al.Quantize(precision), {"precision": "int8"}),
    "format_seconds": (al.bench.format_seconds, {"seconds": 1.0}),
    "machine": (al.bench.machine, {"executes": al.backend_info()}),
    "a loss": (al.losses.disagreement.checked, {"value": 0.1}),
    "audit.add": (lambda loss: al.audit(fast(), original(), max_loss=0.1).add(loss), {"loss": 0.1}),
    "ratio": (lambda timing: al.bench.ratio(timing, timing), {"timing": None}),
    "contenders": (lambda contenders: al.bench.measure(contenders), {"contenders": {}}),
    **{name: (assign(name), {"value": None}) for name in ("policy", "quantize", "plan", "replaced")},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_refused_in_words(name: str) -> None:
    function, arguments = CALLS[name]
    for changed in arguments:
        for value in JUNK:
            given = {key: made() if any(made is one for one in MADE) else made for key, made in arguments.items()}
            try:
                function(**given | {changed: value})
            except al.AdaptiveLSTMError as error:
                assert 0 < len(str(error)) < 2000  # noqa: PT017 (what fits is no error)


@pytest.mark.parametrize("name", ["repeats", "warmup", "prime", "min_time"])
@pytest.mark.parametrize("value", [None, "x", math.nan, True, -1, np.zeros(3), torch.zeros(2), []])
def test_a_measurement_takes_numbers(name: str, value: Any) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=f"{name} must be .*got"):
        al.bench.measure({"nothing": lambda: None}, **{name: value})


NOT_DENSE: dict[str, Any] = {
    "sparse": torch.zeros(1, 6, 3).to_sparse(),
    "float64": torch.zeros(1, 6, 3, dtype=torch.float64),
    "whole": torch.zeros(1, 6, 3, dtype=torch.int64),
    "flat": torch.zeros(6),
    "an array without items": np.array(3),
}


@pytest.mark.parametrize("name", NOT_DENSE)
def test_what_measures_a_model_refuses_what_its_lstm_cannot_read(name: str) -> None:
    for function in (al.measure_sensitivity, al.measure_sensitivities, al.fit_translators):
        model: Any = small() if name == "an array without items" else fast()
        with pytest.raises(al.AdaptiveLSTMError, match="got"):
            function(model, NOT_DENSE[name] if name == "an array without items" else [NOT_DENSE[name]])


NO_BATCHES: tuple[Any, ...] = (5, 2.5, True, None, "x", b"x", object(), ("x",), {"x": 1}, [[]])
RUN_A_MODEL: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "calibrate": (al.calibrate, {"loss": al.losses.disagreement, "max_loss": 0.4, "confidence": 0.8}),
    "compress": (al.compress, {"prune": al.Prune("unit", 0.3)}),
    "compress_within": (al.compress_within, {"change": 0.1}),
    "measure_sensitivity": (al.measure_sensitivity, {}),
    "measure_sensitivities": (al.measure_sensitivities, {}),
}


@pytest.mark.parametrize("name", RUN_A_MODEL)
def test_what_is_no_batch_and_picks_no_output_is_refused_in_words(name: str) -> None:
    function, options = RUN_A_MODEL[name]
    for value in NO_BATCHES:
        model, before = fast(), SEQUENCES[:7]
        with pytest.raises(al.AdaptiveLSTMError, match="got"):
            function(model, [*before, value, *SEQUENCES[7:]], **options)
        with pytest.raises(al.AdaptiveLSTMError, match=r"output: got .*, expected a function"):
            function(model, SEQUENCES, **options, output=value)
        for text in ("some text", b"some bytes"):
            with pytest.raises(al.AdaptiveLSTMError, match="got"):
                function(model, text, **options)
        assert model.lstm.replaced is None
        assert model.lstm.policy == al.Dense()


def test_what_a_model_itself_raises_on_tensors_stays_as_it_is() -> None:
    class Fails(Classifier):
        """Not a matter of the inputs."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """An error of its own."""
            raise KeyError(f"no table for {len(x)}")

    with pytest.raises(KeyError, match="no table"):
        al.measure_sensitivity(al.adapt(Fails().eval()), SEQUENCES)


def test_a_save_refuses_another_certificate(tmp_path: Any) -> None:
    for value in JUNK[1:]:
        with pytest.raises(al.AdaptiveLSTMError, match="certificate: got"):
            al.save(fast(), tmp_path / "model", certificate=value)
    with pytest.raises(al.AdaptiveLSTMError, match="holds no AdaptiveLSTM"):
        al.save(nn.Linear(2, 2), tmp_path / "model")
    assert not list(tmp_path.iterdir())


F, N = np.float32, np.int64
HEAD = al.LinearHead(np.ones((3, 6), F), np.zeros(3, F))
NUMBERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Delta": (al.Delta, {"h": F(0.5), "x": np.float64(0.25)}),
    "SkipTimesteps": (al.SkipTimesteps, {"x_share": F(0.5), "h": F(0.25), "cap": N(3)}),
    "HoldLayers": (al.HoldLayers, {"x_share": F(0.5), "h": F(0.25), "cap": N(3)}),
    "HoldLayers of layers": (al.HoldLayers, {"x_share": (F(0.5),)}),
    "ExitInTime": (
        lambda **given: al.ExitInTime(HEAD, **given),
        {"threshold": F(0.5), "check_every": N(2), "patience": N(3), "starts": (N(0),)},
    ),
    "SplitTime": (al.SplitTime, {"chunk": N(8), "warm_up": N(4), "tolerance": F(0.5)}),
    "Quantize": (lambda **given: al.Quantize("int8", **given), {"levels": N(100), "input_levels": N(90)}),
    "Prune": (lambda **given: al.Prune("block", **given), {"sparsity": F(0.5), "block": (N(2), N(3)), "ridge": F(0.5)}),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy_are_numbers(name: str, tmp_path: Any) -> None:
    make, given = NUMBERS[name]
    plain = {key: tuple(v.item() for v in n) if isinstance(n, tuple) else n.item() for key, n in given.items()}
    made, want = make(**given), make(**plain)
    assert repr(made) == repr(want)
    assert digest(made) == digest(want)
    if name == "Prune":
        return
    model = fast()
    setattr(model.lstm, "quantize" if name == "Quantize" else "policy", made)
    al.save(model, tmp_path / "model")
    loaded: Any = al.load(tmp_path / "model", original())
    assert digest((loaded.lstm.policy, loaded.lstm.quantize)) == digest((model.lstm.policy, model.lstm.quantize))


@pytest.mark.parametrize("seed", [-1, 2**62, 2**64, 2**70, N(3)])
def test_any_whole_number_is_a_seed(seed: Any) -> None:
    found = al.measure_sensitivity(small(), torch.randn(4, 1, 3), probes=2, seed=seed)
    assert found.steps
    al.audit(fast(), original(), max_loss=0.1, seed=seed).close()


@pytest.mark.parametrize("loss", [int, nn.MSELoss, nn.MSELoss(), lambda out, dense: 0.0, lambda: 0.0, 5, None])
def test_a_loss_takes_three_arguments(loss: Any) -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=r"loss: got .*, expected a function of"):
        al.audit(fast(), original(), max_loss=0.1, loss=loss)


PICKS_NONE: dict[str, Any] = {
    "nothing": lambda out: None,
    "a list": lambda out: [out],
    "a name that is not there": lambda out: {"logits": out}["labels"],
    "a number": float,
}


@pytest.mark.parametrize("output", PICKS_NONE.values(), ids=PICKS_NONE)
@pytest.mark.parametrize("name", RUN_A_MODEL)
def test_an_output_that_picks_no_tensor(name: str, output: Any) -> None:
    function, options = RUN_A_MODEL[name]
    model = fast()
    with pytest.raises(al.AdaptiveLSTMError, match=r"output: it .* expected a tensor"):
        function(model, SEQUENCES, **options, output=output)
    assert model.lstm.plan.exact
