"""Other runtimes with the same LSTM: right in every layout, caught when they are wrong, absent with the reason."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from adaptive_lstm import AdaptiveLSTM, peers
from adaptive_lstm.errors import InputError, UnsupportedError
from adaptive_lstm.peers import PEERS, Contender, Unavailable
from adaptive_lstm.peers.processor import multiplies_bytes_exactly
from adaptive_lstm.peers.torch_ import WrittenOut

INPUTS, H, L = 6, 16, 2
# Of the norm of what is compared; OpenVINO's 8 bits have one fixed range for all of h, and this stack is tiny.
ALLOWED = {"fp32": 1e-5, "bf16": 2e-2, "int8": 4e-2}
COARSE = {"OpenVINO int8": 0.3}
NEEDED = {
    "torch": (),
    "ORT": ("onnx", "onnxruntime"),
    "OpenVINO": ("onnx", "openvino"),
    "ncnn": ("ncnn", "pnnx"),
    "tract": ("onnx", "tract"),
    "MNN": ("onnx", "MNN"),
    "OpenCV": ("onnx", "cv2"),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "torch compile" else name for name in PEERS]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


def inputs() -> list[Tensor]:
    return [torch.randn(1, 40, INPUTS) for _ in range(6)]


def plugged(lstm: nn.LSTM, name: str) -> nn.Module:
    """The peer in place of the LSTM, or a skip that says what is missing here."""
    packages = (*NEEDED[name.split()[0]], *(("nncf",) if name == "OpenVINO int8" else ()))
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        pytest.skip(f"{name} needs {', '.join(missing)}: pip install 'adaptive-lstm[peers]'")
    if name == "OpenVINO int8" and not multiplies_bytes_exactly():
        pytest.skip("OpenVINO's int8 LSTM saturates on this processor, and nncf has no fix for LSTMs")
    try:
        return peers.drop_in_peer(lstm, name, inputs=inputs())
    except UnsupportedError as reason:
        pytest.skip(f"{name}: {reason}")


def allowed(name: str) -> float:
    return COARSE.get(name, ALLOWED[PEERS[name].precision])


def assert_close(got: Any, expected: Any, most: float = ALLOWED["fp32"]) -> None:
    """Outputs and both states, packed or not; most: share of the norm."""
    (y, state), (y0, state0) = got, expected
    if isinstance(y0, PackedSequence):
        assert isinstance(y, PackedSequence)
        assert torch.equal(y.batch_sizes, y0.batch_sizes)
        y, y0 = y.data, y0.data
    for one, original in zip((y, *state), (y0, *state0), strict=True):
        assert one.shape == original.shape
        assert float((one - original).norm() / original.norm()) <= most


@pytest.mark.parametrize("form", [{"batch_first": True}, {"bidirectional": True}, {"bias": False}], ids=str)
@pytest.mark.parametrize("name", SLOW)
def test_a_plugged_peer_is_the_lstm(name: str, form: dict[str, bool]) -> None:
    lstm = nn.LSTM(INPUTS, H, L, **form).eval()
    peer, most = plugged(lstm, name), allowed(name)
    batches = [torch.randn(4, t, INPUTS) if lstm.batch_first else torch.randn(t, 4, INPUTS) for t in (5, 1)]
    state = tuple(0.1 * torch.randn(L * (1 + lstm.bidirectional), 4, H) for _ in "hc")
    packed = pack_sequence([torch.randn(n, INPUTS) for n in (3, 7, 7, 2)], enforce_sorted=False)
    with torch.no_grad():
        for x, given in ((torch.randn(5, INPUTS), None), *((b, s) for b in (*batches, packed) for s in (None, state))):
            assert_close(peer(x, given), lstm(x, given), most)


@pytest.mark.parametrize("name", SLOW)
def test_a_built_peer_runs_sequences_and_streams(name: str) -> None:
    lstm = nn.LSTM(INPUTS, H, L).eval()
    plugged(lstm, name)
    (peer,), absent = peers.build(lstm, [name], threads=1, inputs=inputs())
    assert not absent
    assert peer.nbytes is not None
    weights = sum(p.numel() for p in lstm.parameters())
    assert peer.nbytes > weights * {"fp32": 4, "bf16": 2, "int8": 1}[peer.precision] * 0.9
    found = peers.verify_contenders([peer], lstm, [torch.randn(3, 9, INPUTS), torch.randn(1, 4, INPUTS)])
    assert found.verified == [peer]
    assert found.cosines[name] >= (1 - allowed(name) ** 2) ** 0.5
    if peer.precision != "fp32":
        assert found.errors[name] > 1e-6, "an 8- or 16-bit peer that is exact was silently left in float32"


@pytest.mark.parametrize("name", ["OpenVINO", "tract"])
def test_ten_lengths_are_ten_shapes_for_a_peer_that_compiles_few(name: str) -> None:
    lstm = nn.LSTM(INPUTS, H, bidirectional=True).eval()
    peer = plugged(lstm, name)
    packed = pack_sequence([torch.randn(n, INPUTS) for n in range(10, 0, -1)])
    with torch.no_grad():
        assert_close(peer(packed), lstm(packed))


def test_the_step_that_is_compiled_is_the_lstm() -> None:
    lstm = nn.LSTM(INPUTS, H, 3, batch_first=True).requires_grad_(False)
    x, h, c = torch.randn(2, 1, INPUTS), torch.randn(3, 2, H), torch.randn(3, 2, H)
    y, h_n, c_n = WrittenOut(lstm)(x, h, c)
    assert_close((y, (h_n, c_n)), lstm(x, (h, c)))


@dataclass(frozen=True)
class Broken:
    """A contender that does something to the right outputs."""

    name: str
    precision: str
    lstm: nn.LSTM
    spoil: Callable[[Tensor], Tensor]
    nbytes: int | None = None

    def whole(self, x: Tensor) -> Callable[[], Tensor]:
        return lambda: self.spoil(self.lstm(x)[0])

    def steps(self, x: Tensor) -> Callable[[], Tensor]:
        return self.whole(x)

    def stream(self, x: Tensor) -> Callable[[], Tensor]:
        steps = iter(self.lstm(x)[0].split(1, dim=1))
        return lambda: next(steps)


@pytest.mark.parametrize(
    ("precision", "spoil", "reason"),
    [
        ("int8", lambda y: y.flip(2).neg(), "cosine .* with torch, at least 0.5 needed"),
        ("int8", lambda y: torch.zeros_like(y), "cosine 0.00 with torch"),
        ("int8", lambda y: y * float("nan"), "NaN or infinity"),
        ("int8", lambda y: y[:, 1:], r"shape \[1, 8, 16\] instead of \[1, 9, 16\]"),
        ("fp32", lambda y: y + 0.01, "differs from torch by 0.01, allowed 0.0001 in fp32"),
    ],
    ids=["another function", "zeros", "NaN", "shape", "fp32 that is not"],
)
def test_a_broken_peer_is_excluded_with_the_reason(
    precision: str, spoil: Callable[[Tensor], Tensor], reason: str
) -> None:
    lstm = nn.LSTM(INPUTS, H, L, batch_first=True).eval()
    good = Broken("good", "fp32", lstm, lambda y: y)
    found = peers.verify_contenders([Broken("bad", precision, lstm, spoil), good], lstm, torch.randn(1, 9, INPUTS))
    assert found.verified == [good]
    assert "bad" not in found.errors
    (wrong,) = found.excluded
    assert wrong.name == "bad"
    assert wrong.reason.startswith("excluded, its output is wrong: ")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(wrong.reason)
    assert "(whole sequence)" in wrong.reason
    assert "(stream)" not in wrong.reason  # which is right


def test_an_imprecise_peer_stays_with_its_error() -> None:
    lstm = nn.LSTM(INPUTS, H, L, batch_first=True).eval()
    rough = Broken("rough", "int8", lstm, lambda y: (y * 20).round() / 20)
    found = peers.verify_contenders([rough], lstm, torch.randn(1, 30, INPUTS))
    assert found.verified == [rough]
    assert found.errors["rough"] == pytest.approx(0.025, abs=2e-3)
    assert 0.9 < found.cosines["rough"] < 1


def test_a_missing_package_makes_a_peer_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptive_lstm.peers import mnn, ncnn, opencv, openvino, tract
    from adaptive_lstm.peers import onnx_export as onnx
    from adaptive_lstm.peers import onnxruntime_ as ort

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    for module in (mnn, ncnn, onnx, opencv, openvino, ort, tract):
        monkeypatch.setattr(module, "import_module", missing)
    present, absent = peers.build(
        nn.LSTM(INPUTS, H), [n for n in PEERS if "torch" not in n], threads=1, inputs=inputs()
    )
    assert present == []
    assert {one.name: one.reason for one in absent}["ncnn"] == "No module named 'ncnn'"
    assert all(one.reason.startswith("No module named") for one in absent)


def test_what_a_peer_cannot_run_is_said() -> None:
    projecting = nn.LSTM(INPUTS, H, proj_size=4)
    _, absent = peers.build(projecting, ["torch int8", "torch cells", "torch compile"], threads=1)
    assert [one.name for one in absent] == ["torch int8", "torch cells", "torch compile"]
    assert "no projection" in absent[0].reason
    if importlib.util.find_spec("openvino"):
        _, absent = peers.build(nn.LSTM(INPUTS, H), ["OpenVINO int8"], threads=1)
        assert absent == [Unavailable("OpenVINO int8", absent[0].reason)]
        assert "inputs=[...]" in absent[0].reason
    (torch_eager,), _ = peers.build(nn.LSTM(INPUTS, H, bidirectional=True), ["torch"], threads=1)
    with pytest.raises(UnsupportedError, match="cannot stream"):
        torch_eager.stream(torch.randn(1, 3, INPUTS))


def test_an_older_opencv_is_absent_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptive_lstm.peers import opencv

    older = SimpleNamespace(__version__="4.11.0", dnn=SimpleNamespace())
    monkeypatch.setattr(opencv, "import_module", lambda name: older)
    _, absent = peers.build(nn.LSTM(INPUTS, H), ["OpenCV"], threads=1)
    assert absent == [Unavailable("OpenCV", "OpenCV 4.11.0 reads no LSTM of free length with states, OpenCV 5 does")]


def test_bad_requests_are_refused() -> None:
    lstm = nn.LSTM(INPUTS, H)
    with pytest.raises(InputError, match="unknown peer 'TensorFlow', expected one of torch, "):
        peers.build(lstm, ["TensorFlow"], threads=1)
    with pytest.raises(InputError, match=r"inputs must be \[1, T, 6\].*got \[1, 3, 7\]"):
        peers.drop_in_peer(lstm, "torch", inputs=[torch.randn(1, 3, 7)])
    with pytest.raises(InputError, match="nothing to replace"):
        peers.with_peer(nn.Linear(2, 2), "torch")
    plug = peers.drop_in_peer(lstm, "torch")
    with pytest.raises(InputError, match="x must end in 6 features"):
        plug(torch.randn(3, 1, 5))
    with pytest.raises(InputError, match=r"h of the initial state is \[1, 2, 16\], expected \[1, 3, 16\]"):
        plug(torch.randn(4, 3, INPUTS), (torch.zeros(1, 2, H), torch.zeros(1, 2, H)))


class Tagger(nn.Module):
    """Two LSTMs, one used twice, one in a list: what a copy with peers must get right."""

    def __init__(self) -> None:
        super().__init__()
        self.below = nn.LSTM(INPUTS, H, batch_first=True)
        self.above = nn.ModuleList([nn.LSTM(H, H, bidirectional=True)])
        self.again = self.below
        self.head = nn.Linear(2 * H, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.below.flatten_parameters()
        assert self.again is self.below
        y, _ = self.above[0](self.below(x)[0].transpose(0, 1))
        return torch.as_tensor(self.head(y.transpose(0, 1)))


@pytest.mark.parametrize("name", ["torch int8", "ORT", "OpenVINO int8"])
def test_a_model_runs_with_a_peer_in_the_place_of_every_lstm(name: str) -> None:
    model = Tagger().eval()
    plugged(model.below, name)
    before = {key: values.clone() for key, values in model.state_dict().items()}
    fast = peers.with_peer(model, name, inputs=inputs())
    assert not [m for m in fast.modules() if isinstance(m, nn.LSTM)]
    assert sum(isinstance(m, nn.LSTM) for m in model.modules()) == 2
    x = torch.randn(2, 12, INPUTS)
    with torch.no_grad():
        assert_close((fast(x), ()), (model(x), ()), allowed(name))
    assert all(torch.equal(before[key], values) for key, values in model.state_dict().items())
    lstm = nn.LSTM(INPUTS, H)
    assert not isinstance(peers.with_peer(lstm, "torch"), nn.LSTM)


def test_the_inputs_that_reach_an_lstm_are_found() -> None:
    model = Tagger().eval()
    x = torch.randn(2, 5, INPUTS)
    found = peers.inputs_of_lstms(model, [x, x[:1]])
    assert [list(one.shape) for one in found["below"]] == [[1, 5, INPUTS]] * 3
    assert torch.equal(torch.cat(found["below"][:2]), x)
    with torch.no_grad():
        torch.testing.assert_close(found["above.0"][1], model.below(x[1:])[0])
    packed = pack_sequence([torch.randn(n, INPUTS) for n in (2, 4)], enforce_sorted=False)
    assert [one.shape[1] for one in peers.inputs_of_lstms(model.below, [packed])[""]] == [2, 4]


def test_ours_are_contenders_in_any_layout() -> None:
    lstm = nn.LSTM(INPUTS, H, L).eval()
    ours: list[Contender] = [peers.build_adaptive(lstm), peers.build_adaptive(lstm, "int8")]
    assert [one.name for one in ours] == ["adaptive fp32", "adaptive int8"]
    found = peers.verify_contenders(ours, lstm, torch.randn(2, 8, INPUTS))
    assert (found.verified, found.excluded) == (ours, [])
    assert not lstm.batch_first  # the caller's own stays as it is
    assert isinstance(peers.build_adaptive(AdaptiveLSTM.from_lstm(lstm)).lstm, AdaptiveLSTM)


@pytest.mark.parametrize("name", ["torch", "adaptive fp32"])
def test_steps_begin_in_the_zero_state_every_time(name: str) -> None:
    lstm = nn.LSTM(INPUTS, H, L, batch_first=True).eval()
    who = peers.build_adaptive(lstm) if name == "adaptive fp32" else peers.build(lstm, [name], threads=1)[0][0]
    x = torch.randn(1, 7, INPUTS)
    with torch.no_grad():
        run, expected = who.steps(x), lstm(x)[0][:, -1]
        for _ in range(2):
            torch.testing.assert_close(run().reshape(1, H), expected)


@pytest.mark.parametrize(
    ("flags", "exact"),
    [
        ("flags\t\t: fpu sse avx2 avx512_vnni", True),
        ("flags\t\t: fpu avx2 avx_vnni", True),
        ("flags\t\t: fpu sse avx2 avx512f", False),
        ("Features\t: fp asimd asimddp", True),
        ("Features\t: fp asimd", False),
        ("model name\t: unknown", True),
    ],
)
def test_products_of_bytes(flags: str, exact: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n", encoding="utf-8")
    assert multiplies_bytes_exactly(cpuinfo) == exact
    assert multiplies_bytes_exactly(tmp_path / "absent")
