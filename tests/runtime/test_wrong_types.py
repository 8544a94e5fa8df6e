"""Values of a wrong type, for every argument of the public API: an error of the package that says what it got."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al

from ..support.small_task import Classifier

JUNK: tuple[Any, ...] = (
    *(None, 5, -1, True, "x", b"x", (), [1], {}, float("nan"), float("inf"), 2**70, object(), int, lambda *a: None),
    *(np.zeros(3), torch.zeros(2)),
)
SEQUENCES = [torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(n)) for n in range(40)]


@functools.cache
def original() -> Any:
    return Classifier(2).eval()


def fast() -> Any:
    return al.adapt(original())


def assign(name: str) -> Callable[..., None]:
    return lambda value: setattr(fast().lstm, name, value)


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "adapt": (al.adapt, {"model": None}),
    "load": (al.load, {"path": "missing", "model": None, "policies": ()}),
    "load_certificate": (al.load_certificate, {"path": "missing", "policies": ()}),
    "restore": (al.restore, {"model": None}),
    "report": (al.report, {"model": None}),
    "compress": (al.compress, {"model": fast, "prune": None, "quantize": None, "rounding": "nearest"}),
    "compress_within": (
        al.compress_within,
        {"model": fast, "inputs": SEQUENCES[:4], "change": None, "pattern": "x", "quantize": None, "seconds": 1e-6},
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
    **{name: (assign(name), {"value": None}) for name in ("policy", "quantize", "plan", "replaced")},
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_type_is_refused_in_words(name: str) -> None:
    function, arguments = CALLS[name]
    for changed in arguments:
        for value in JUNK:
            given = {key: made() if made is fast or made is original else made for key, made in arguments.items()}
            try:
                function(**given | {changed: value})
            except al.AdaptiveLSTMError as error:
                assert 0 < len(str(error)) < 2000  # noqa: PT017 (what fits is no error)


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
