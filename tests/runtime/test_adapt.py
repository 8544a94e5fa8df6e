"""``adapt`` on whole models: every way in which real models hold and use an LSTM."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al

from ..support.helpers import (
    adapted,
    always_native,
    assert_close,
    assert_equal,
    infer,
    infer_natively,
    signal,
    torch_lstm,
)

I = 6  # noqa: E741 (the letter of the input size everywhere)
H, B, T = 10, 3, 15
X = signal(T, B, I).transpose(0, 1)  # batch first


class LastState(nn.Module):
    """Uses ``h_n`` only."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(I, H, 2, batch_first=True), nn.Linear(H, 3)

    def forward(self, x: torch.Tensor) -> Any:
        _, (h, _) = self.lstm(x)
        return self.head(h[-1])


class LastOutput(LastState):
    """Uses ``output[:, -1]`` only."""

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


class FrameByFrame(LastState):
    """Carries ``(h, c)`` itself, one frame at a time; starts from None."""

    def forward(self, x: torch.Tensor) -> Any:
        state, outputs = None, []
        for t in range(x.shape[1]):
            output, state = self.lstm(x[:, t : t + 1], state)
            outputs.append(self.head(output))
        return torch.cat(outputs, dim=1), state


class Unbatched(LastState):
    """Runs every row alone, without a batch dimension."""

    def forward(self, x: torch.Tensor) -> Any:
        return torch.stack([self.head(self.lstm(row)[0]) for row in x])


class Packed(LastState):
    """Packs, as models for text do."""

    def forward(self, x: torch.Tensor) -> Any:
        lengths = torch.tensor([T - 4, T, 1])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, (h, c) = self.lstm(packed)
        return pad_packed_sequence(output, batch_first=True)[0], h, c


class FlippedLayers(nn.Module):
    """Single layers in a list, time reversed between them (Bonito's basecallers)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTM(n, H) for n in (I, H, H))

    def forward(self, x: torch.Tensor) -> Any:
        x = x.transpose(0, 1)
        for layer in self.layers:
            x = layer(x.flip(0))[0]
        return x


class EncoderDecoder(nn.Module):
    """Two LSTMs of different options; the second starts from the state of the first. Nested in a Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"rnn": nn.LSTM(I, H // 2, bidirectional=True, batch_first=True)})
        self.decoder = nn.Sequential(nn.Identity(), nn.LSTM(I, H, proj_size=4, bias=False, batch_first=True))

    def forward(self, x: torch.Tensor) -> Any:
        _, (_, c) = self.encoder["rnn"](x)
        joined = torch.cat([c[0], c[1]], dim=1)[None]
        return self.decoder[1](self.decoder[0](x), (joined[..., :4].contiguous(), joined))


MODELS = [LastState, LastOutput, FrameByFrame, Unbatched, Packed, FlippedLayers, EncoderDecoder]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("model_class", MODELS)
def test_models(model_class: type[nn.Module]) -> None:
    model = model_class().eval()
    before = dict(model.named_modules())
    fast = al.adapt(model)
    with torch.no_grad(), always_native():
        assert_close(fast(X), model(X), "fp32")
        assert_equal(fast(X), fast(X))
    lstms = [m for m in fast.modules() if isinstance(m, nn.LSTM)]
    assert lstms
    for lstm in lstms:
        assert isinstance(lstm, al.AdaptiveLSTM)
        assert lstm.last_run is not None
        assert lstm.last_run.route.by == "native"
    assert list(fast.state_dict()) == list(model.state_dict())
    assert dict(model.named_modules()) == before
    assert not any(isinstance(m, al.AdaptiveLSTM) for m in model.modules())


def test_a_shared_lstm_stays_shared() -> None:
    lstm = nn.LSTM(I, I)
    fast = al.adapt(nn.ModuleDict({"a": lstm, "b": nn.Sequential(lstm), "c": nn.LSTM(I, I)}).eval())
    a, b, c = fast.get_submodule("a"), fast.get_submodule("b.0"), fast.get_submodule("c")
    assert a is b
    assert a is not c
    assert isinstance(a, al.AdaptiveLSTM)
    assert a is not lstm


def test_an_adapted_model_keeps_its_settings() -> None:
    fast = al.adapt(nn.Sequential(adapted(I, H, policy=al.Delta.uniform(0.1), quantize="int8"), nn.LSTM(H, H)))
    first, second = fast.get_submodule("0"), fast.get_submodule("1")
    assert isinstance(first, al.AdaptiveLSTM)
    assert isinstance(second, al.AdaptiveLSTM)
    assert (first.policy, first.quantize) == (al.Delta.uniform(0.1), al.Quantize("int8"))
    assert (second.policy, second.quantize) == (al.Dense(), al.Quantize())


def test_hooks_stay() -> None:
    lstm, calls = torch_lstm(I, H, batch_first=True), []
    lstm.register_forward_hook(lambda module, args, out: calls.append(type(module)))
    infer(al.adapt(lstm), X)
    assert calls == [al.AdaptiveLSTM]


# ------------------------------------------------------------------------------------------------------ subclasses


class OwnForward(nn.LSTM):
    """Does something else before it calls ``nn.LSTM.forward``."""

    def forward(self, input: torch.Tensor, hx: Any = None) -> Any:  # type: ignore[override]  # noqa: A002
        return super().forward(2 * input, hx)


class OwnMethod(nn.LSTM):
    """Adds a method that the model around it calls."""

    def initial(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(1, batch, self.hidden_size), torch.ones(1, batch, self.hidden_size)


class Around(nn.Module):
    """Calls the method."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = OwnMethod(I, H, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lstm(x, self.lstm.initial(len(x)))


def test_a_forward_of_its_own_is_left_alone() -> None:
    model = nn.ModuleDict({"special": OwnForward(I, H, batch_first=True), "plain": nn.LSTM(I, H)}).eval()
    with pytest.warns(UserWarning, match=r"not converted.*: special$"):
        fast = al.adapt(model)
    special = fast.get_submodule("special")
    assert type(special) is OwnForward
    assert isinstance(fast.get_submodule("plain"), al.AdaptiveLSTM)
    with torch.no_grad():
        assert_equal(special(X), model["special"](X))
    with pytest.raises(al.AdaptiveLSTMError, match=r"got OwnForward|OwnForward is a subclass"):
        al.AdaptiveLSTM.from_lstm(OwnForward(I, H))


def test_a_subclass_with_other_methods_still_has_them() -> None:
    model = Around().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # leaving it alone with a warning would be right, too
        fast = al.adapt(model)
    with torch.no_grad():
        assert_close(fast(X), model(X), "fp32")


def test_a_parametrized_lstm() -> None:
    # Parametrizations live in a class of their own, which torch makes for the module.
    lstm = torch_lstm(I, H, batch_first=True)
    parametrizations.weight_norm(lstm, "weight_hh_l0")
    fast = al.adapt(lstm)
    assert isinstance(fast, al.AdaptiveLSTM)
    assert not isinstance(lstm, al.AdaptiveLSTM)
    for module in (lstm, fast):
        with torch.no_grad():
            module.get_parameter("parametrizations.weight_hh_l0.original0").mul_(2.0)
    assert_close(infer_natively(fast, X), infer(lstm, X), "fp32")
    assert isinstance(al.AdaptiveLSTM.from_lstm(lstm), al.AdaptiveLSTM)


class LowRank(nn.Module):
    """As in LoRA: the frozen weight and a product of two narrow matrices."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        torch.manual_seed(1)
        self.down, self.up = nn.Parameter(torch.randn(2, columns)), nn.Parameter(torch.randn(rows, 2) / 10)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w + self.up @ self.down


def test_a_parametrized_lstm_is_compressed_saved_and_copied_after_a_call(tmp_path: Path) -> None:
    model = torch_lstm(I, H, 2, batch_first=True)
    parametrize.register_parametrization(model, "weight_hh_l1", LowRank(4 * H, H))
    fast = al.AdaptiveLSTM.from_lstm(model)
    al.compress(fast, quantize=al.Quantize("int8"))
    expected = infer_natively(fast, X)
    assert_equal(infer_natively(copy.deepcopy(fast), X), expected)
    assert_equal(infer_natively(al.adapt(fast), X), expected)
    al.save(fast, tmp_path / "model")
    assert_equal(infer(al.load(tmp_path / "model", model), X), expected)
    loaded = al.load(tmp_path / "model", fast)
    assert_equal(infer_natively(loaded, X), expected)
    with torch.no_grad():
        loaded.get_parameter("parametrizations.weight_hh_l1.0.up").mul_(4.0)
    assert (infer_natively(loaded, X)[0] - expected[0]).abs().max() > 1e-3
    before = infer_natively(loaded, X)
    parametrize.remove_parametrizations(loaded, "weight_hh_l1")
    assert type(loaded) is al.AdaptiveLSTM
    assert_equal(infer_natively(loaded, X), before)


# ----------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.1)], ids=["dense", "delta"])
def test_an_empty_batch(policy: al.Policy, quantize: str) -> None:
    fast = adapted(I, H, 2, policy=policy, quantize=quantize, batch_first=True)
    assert_equal(infer(fast, X[:0]), infer(torch_lstm(I, H, 2, batch_first=True), X[:0]))
    assert fast.last_run is not None
    assert (fast.last_run.timesteps, fast.last_run.macs, fast.last_run.activity) == (0, 0, 1.0)
    with pytest.raises(RuntimeError, match="sequence length"):  # as nn.LSTM
        infer(fast, X[:, :0])


class GatedCell(nn.GRUCell):
    """A user's own cell."""


OTHERS: dict[str, tuple[nn.Module, str]] = {
    "cell": (nn.RNNCell(I, H), r"0 \(RNNCell\)"),
    "gru": (nn.GRU(I, H), r"0 \(GRU\)"),
    "nested": (nn.ModuleDict({"a": nn.RNN(I, H), "b": GatedCell(I, H)}), r"0.a \(RNN\), 0.b \(GatedCell\)"),
}


@pytest.mark.parametrize(("other", "named"), OTHERS.values(), ids=OTHERS)
def test_what_adapt_leaves_is_said_once(other: nn.Module, named: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(al.errors.InputError, match=f"it holds {named}, and only those two are converted"):
        al.adapt(nn.Sequential(other, nn.Linear(2, 2)))
    assert not caplog.records
    fast = al.adapt(nn.Sequential(other, nn.LSTM(I, H)))
    assert isinstance(fast.get_submodule("1"), al.AdaptiveLSTM)
    (record,) = caplog.records
    assert record.name == "adaptive_lstm"
    assert re.search(named, record.getMessage())


def test_nothing_is_said_of_models_without_others(caplog: pytest.LogCaptureFixture) -> None:
    al.adapt(EncoderDecoder())
    assert not caplog.records


def test_quantized_and_scripted_lstms_are_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are deprecated
        quantized = torch.ao.quantization.quantize_dynamic(LastState().eval(), {nn.LSTM})
        scripted = torch.jit.script(nn.Sequential(nn.LSTM(I, H)))
    with pytest.raises(al.errors.InputError, match=r"holds no torch.nn.LSTM or LSTMCell; it holds lstm"):
        al.adapt(quantized)
    with pytest.raises(al.errors.InputError, match=r"holds no torch.nn.LSTM or LSTMCell; it holds 0 \(LSTM\)"):
        al.adapt(scripted)


def test_a_model_without_lstm() -> None:
    with pytest.raises(al.AdaptiveLSTMError, match=r"Linear holds no .*, so there is nothing to adapt"):
        al.adapt(nn.Linear(2, 2))
    with pytest.raises(al.AdaptiveLSTMError, match="got str"):
        al.adapt("model")  # type: ignore[type-var]
    with pytest.raises(al.AdaptiveLSTMError, match="got GRU"):
        al.AdaptiveLSTM.from_lstm(nn.GRU(2, 2))  # type: ignore[arg-type]
