"""An adapted LSTM in graphs of torch: one operation that gives what a call gives, bit for bit."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, UnsupportedError

from ..support.helpers import always_native, assert_close, assert_equal, infer, only_lstm, signal
from ..support.policy_cases import head

I, H = 4, 8  # noqa: E741 (the letter of the input size everywhere)
X = signal(5, 2, I).transpose(0, 1)
LONG = signal(9, 3, I, seed=1).transpose(0, 1)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:.*treespec:FutureWarning", "ignore::torch.jit.TracerWarning"
)


class Model(nn.Module):
    """An LSTM that is called twice, the second time from its own state."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.lstm = nn.LSTM(I, H, 2, batch_first=True, **options)
        width = (options.get("proj_size") or H) * (1 + options.get("bidirectional", False))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, hc = self.lstm(x)
        z, _ = self.lstm(x, hc)
        out: torch.Tensor = self.head(y + z)
        return out


def pruned(model: nn.Module) -> None:
    al.compress(model, [X] * 4, prune=al.Prune("unit", 0.25), quantize=al.Quantize("int8"))


def setting(**settings: Any) -> Callable[[nn.Module], None]:
    def use(model: nn.Module) -> None:
        for name, value in settings.items():
            setattr(only_lstm(model), name, value)

    return use


SETTINGS: dict[str, Callable[[nn.Module], None]] = {
    "exact": setting(),
    "int8": setting(quantize=al.Quantize("int8")),
    "bf16": setting(quantize=al.Quantize("bf16")),
    "delta": setting(policy=al.Delta.uniform(0.02), quantize=al.Quantize("int8")),
    "exit": setting(policy=al.ExitInTime(head(H), threshold=0.9)),
    "pruned": pruned,
}
EVERY_SETTING = pytest.mark.parametrize("use", SETTINGS.values(), ids=SETTINGS)


def model_with(use: Callable[[nn.Module], None], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    fast = al.adapt(Model(**options).eval())
    use(fast)
    return fast


@pytest.fixture(autouse=True)
def _always_native_and_compiled_anew() -> Iterator[None]:
    torch._dynamo.reset()
    with always_native():  # so that no race decides who gives the last bits
        yield
    torch._dynamo.reset()


def exported(model: nn.Module, **options: Any) -> Any:
    dims = ({0: Dim("batch", min=1), 1: Dim("time", min=1)},)
    with torch.no_grad():
        return torch.export.export(model, (X,), dynamic_shapes=dims, **options)


def operations(graph: Any) -> list[str]:
    return [str(node.target) for node in graph.nodes if "adaptive_lstm" in str(node.target)]


# ------------------------------------------------------------------------------------------------------ torch.compile


@EVERY_SETTING
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile_in_one_graph(backend: str, use: Callable[[nn.Module], None]) -> None:
    fast = model_with(use)
    compiled = torch.compile(fast, backend=backend, fullgraph=True, dynamic=True)
    for x in (X, LONG, LONG):
        assert_equal(infer(compiled, x), infer(fast, x))


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"proj_size": 3}, {"bias": False}])
def test_compile_every_layout(options: dict[str, Any]) -> None:
    fast = model_with(SETTINGS["int8"], **options)
    assert_equal(infer(torch.compile(fast, backend="aot_eager", fullgraph=True), X), infer(fast, X))
    assert_equal(infer(exported(fast).module(), LONG), infer(fast, LONG))


def test_an_lstm_alone_and_what_it_is_given() -> None:
    lstm = only_lstm(model_with(SETTINGS["int8"]))
    compiled = torch.compile(lstm, backend="eager", fullgraph=True)
    state = infer(lstm, X)[1]
    assert_equal(infer(compiled, X, state), infer(lstm, X, state))
    alone = (state[0][:, 0], state[1][:, 0])
    assert_equal(infer(compiled, X[0], alone), infer(lstm, X[0], alone))
    assert_equal(infer(compiled, X[0]), infer(lstm, X[0]))


def test_a_policy_in_python_compiles() -> None:
    exit_in_python = al.ExitInTime(lambda s: 9 * s[:, :3], threshold=0.5, check_every=1)
    fast = model_with(setting(policy=exit_in_python))
    assert_equal(infer(torch.compile(fast, backend="eager", fullgraph=True), X), infer(fast, X))


def test_a_compiled_model_follows_what_is_set_and_written() -> None:
    fast = model_with(SETTINGS["exact"])
    lstm, compiled = only_lstm(fast), torch.compile(fast, backend="aot_eager", fullgraph=True)
    exact = infer(compiled, X)
    lstm.quantize = al.Quantize("int8")
    assert not torch.equal(infer(compiled, X), exact)
    assert_equal(infer(compiled, X), infer(fast, X))
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l0").mul_(0.5)
    assert_equal(infer(compiled, X), infer(fast, X))
    assert lstm.last_run is not None
    assert lstm.last_run.route.by == "native"


def test_other_lstms_are_compiled_as_before() -> None:
    plain = nn.Sequential(nn.LSTM(I, H)).eval()
    with pytest.raises(Exception, match="RNN, GRU, or LSTM"):
        infer(torch.compile(plain, backend="eager", fullgraph=True), X)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler's own
def test_gradients_and_training_are_left_out_of_the_graph() -> None:
    fast = model_with(SETTINGS["exact"])
    compiled = torch.compile(fast, backend="eager")
    for module in (fast.eval(), fast.train()):
        got, want = compiled(X), module(X)
        assert_equal(got.detach(), want.detach())
        got.sum().backward()
        ours = [p.grad for p in fast.parameters()]
        fast.zero_grad()
        want.sum().backward()
        for grad, p in zip(ours, fast.parameters(), strict=True):
            torch.testing.assert_close(grad, p.grad)
        fast.zero_grad()
    fast.eval()
    assert_equal(infer(compiled, X), infer(fast, X))
    torch._dynamo.reset()
    with pytest.raises(Exception, match="gradients, autocast and packed sequences are left out"):
        torch.compile(fast, backend="eager", fullgraph=True)(X)


def test_packed_sequences_are_left_out_of_the_graph() -> None:
    lstm = only_lstm(model_with(SETTINGS["int8"]))

    def packed(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        y, _ = lstm(pack_padded_sequence(x, lengths, batch_first=True))
        return 2 * pad_packed_sequence(y, batch_first=True)[0]

    lengths = torch.tensor([5, 3])
    assert_equal(infer(torch.compile(packed, backend="eager"), X, lengths), infer(packed, X, lengths))
    assert lstm.last_run is not None
    assert lstm.last_run.route.by == "native"


def test_hooks_run() -> None:
    fast, seen = model_with(SETTINGS["int8"]), []
    only_lstm(fast).register_forward_hook(lambda *of_call: seen.append(1))
    infer(torch.compile(fast, backend="eager"), X)
    assert len(seen) == 2


# ------------------------------------------------------------------------------------------------------- torch.export


@EVERY_SETTING
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_runs_elsewhere(strict: bool, use: Callable[[nn.Module], None], tmp_path: Path) -> None:
    fast = model_with(use)
    program = exported(fast, strict=strict)
    assert operations(program.graph) == ["adaptive_lstm.lstm.default"] * 2
    assert len(program.constants) == 1, "two calls share one copy of the weights"
    want = infer(fast, LONG)
    with torch.no_grad():
        only_lstm(fast).get_parameter("weight_hh_l0").zero_()  # the program has a copy
    assert_equal(infer(program.module(), LONG), want)
    assert_equal(infer(program.run_decompositions().module(), LONG), want)
    assert_equal(infer(torch.compile(program.module(), backend="aot_eager", fullgraph=True), LONG), want)


def test_programs_and_traces_in_another_process(tmp_path: Path) -> None:
    fast = model_with(SETTINGS["delta"])
    torch.export.save(exported(fast), tmp_path / "program.pt2")
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(fast, (X,)), str(tmp_path / "trace.pt"))
    torch.save([LONG, infer(fast, LONG)], tmp_path / "want.pt")
    code = """
import adaptive_lstm
import torch
x, want = torch.load("want.pt")
assert torch.equal(torch.export.load("program.pt2").module()(x), want)
assert torch.equal(torch.jit.load("trace.pt")(x), want)
"""
    for text in (code, "import torch\n" + code):
        root = Path(__file__).resolve().parents[2]
        run = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{text}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("grad", [False, True])
def test_parametrized_weights_and_other_dtypes(grad: bool) -> None:
    fast = al.adapt(Model().eval())
    parametrized = Model().eval()
    parametrizations.weight_norm(parametrized.lstm, "weight_hh_l0")
    other = al.adapt(parametrized)
    for model, dtype in ((other, torch.float32), (fast.double(), torch.float64)):
        only_lstm(model).quantize = al.Quantize("int8")
        with torch.set_grad_enabled(grad):
            program = torch.export.export(model, (X.to(dtype),))
        assert operations(program.graph)
        assert_equal(infer(program.module(), X.to(dtype)), infer(model, X.to(dtype)))


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of plain LSTMs too
def test_what_torch_itself_serves_is_torch_in_a_program() -> None:
    fast = al.adapt(Model().eval()).double()
    program = torch.export.export(fast, (X.double(),))
    assert not operations(program.graph)
    assert_close(infer(program.module(), X.double()), infer(fast, X.double()), "fp64")


def test_what_no_program_can_hold() -> None:
    fast = model_with(setting(policy=al.ExitInTime(lambda s: 9 * s[:, :3], threshold=0.5)))
    with pytest.raises(UnsupportedError, match=r"saved program cannot hold this LSTM: .*Python code"):
        exported(fast)


def test_programs_have_no_gradient() -> None:
    program = exported(model_with(SETTINGS["int8"])).module()
    y = program(X.clone().requires_grad_())
    with pytest.raises(UnsupportedError, match="has no gradient"):
        y.sum().backward()


def test_programs_check_their_input() -> None:
    fast = model_with(SETTINGS["int8"])
    program = exported(fast)
    with pytest.raises(InputError, match="NaN or infinity"):
        infer(program.module(), torch.full_like(X, torch.nan))
    for bad in (torch.zeros(2, 5, 7), torch.zeros(2, 2, 2, I)):
        with pytest.raises(InputError, match=r"LSTM: got an input of shape .*, expected .* with I = 4"):
            torch.export.export(only_lstm(fast), (bad,))
    for state, message in (
        ((torch.zeros(2, 2, 7), torch.zeros(2, 2, H)), r"h_0: got shape \(2, 2, 7\), expected \(2, 2, 8\)"),
        ((torch.zeros(2, 2, H), torch.zeros(2, 1, H)), r"c_0: got shape \(2, 1, 8\), expected \(2, 2, 8\)"),
        ((torch.zeros(2, 2, H), torch.zeros(2, 2, H).double()), "c_0: got torch.float64, expected torch.float32"),
    ):
        with pytest.raises(InputError, match=message):
            torch.export.export(only_lstm(fast), (X, state))


def test_altered_programs_are_refused_and_alter_no_other() -> None:
    fast = model_with(SETTINGS["int8"])
    program = exported(fast)
    (call, *_) = [node for node in program.graph.nodes if "adaptive_lstm" in str(node.target)]
    (model,) = program.constants.values()
    digest, sizes = call.args[4], call.args[5]
    operation = torch.ops.adaptive_lstm.lstm
    with pytest.raises(al.errors.ModelFileError, match="not the one that was exported"):
        operation(X, None, None, model, digest[::-1], sizes, True)
    model[-1] += 1
    with pytest.raises(al.errors.ModelFileError):
        operation(X, None, None, model, digest[::-1], sizes, True)
    (other,) = exported(fast).constants.values()
    assert_equal(operation(X, None, None, other, digest, sizes, True)[0], infer(only_lstm(fast), X)[0])
    assert not torch.equal(other, model)
    assert other.numpy()[:32].tobytes().hex() == digest


# ------------------------------------------------------------------------------------------------------------- tracing


@EVERY_SETTING
def test_traces_hold_what_is_set(use: Callable[[nn.Module], None]) -> None:
    fast = model_with(use)
    with torch.no_grad():
        graph, traced = make_fx(fast)(X), torch.jit.trace(fast, (X,))
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            y, (h, c) = only_lstm(fast)(fake.from_tensor(X))
    assert operations(graph.graph) == ["adaptive_lstm.lstm_here.default"] * 2
    assert "adaptive_lstm::lstm" in str(traced.inlined_graph)
    assert_equal(infer(graph, 2 * X), infer(fast, 2 * X))  # make_fx takes sizes for constants
    assert_equal(infer(traced, LONG), infer(fast, LONG))
    for got, want in zip((y, h, c), (lambda out: (out[0], *out[1]))(infer(only_lstm(fast), X)), strict=True):
        assert (got.shape, got.dtype, got.stride()) == (want.shape, want.dtype, want.contiguous().stride())


def test_a_graph_that_outlives_its_lstm() -> None:
    with torch.no_grad():
        graph = make_fx(al.adapt(nn.LSTM(I, H).eval()))(X)
        gc.collect()
        with pytest.raises(InputError, match="not in this process any more"):
            graph(X)
