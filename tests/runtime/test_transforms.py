"""Tools that transform, trace or wrap models: they work with an adapted one, or one sentence says what to do."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from functorch.compile import aot_module, nop  # type: ignore[import-untyped]
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, UnsupportedError

from ..support.helpers import adapted, assert_close, assert_equal, infer, only_lstm, signal

I, H = 4, 8  # noqa: E741 (the letter of the input size everywhere)
X = signal(5, 2, I).transpose(0, 1)


class Tagger(nn.Module):
    """Two LSTMs, the second from the state of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(I, H, batch_first=True), nn.LSTM(H, H, batch_first=True)
        self.head = nn.Linear(H, 2)

    def forward(self, x: torch.Tensor) -> Any:
        y, (h, c) = self.encoder(x)
        y, _ = self.decoder(y, (h, c))
        return self.head(y[:, -1])


class Last(nn.Module):
    """One LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(I, H, batch_first=True), nn.Linear(H, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.lstm(x)[0][:, -1])


MODELS = pytest.mark.parametrize("model", [Last, Tagger, lambda: nn.Sequential(nn.LSTM(I, H, 2, bidirectional=True))])
OLD_JIT = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own


def first(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else first(out[0])


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# -------------------------------------------------------------------------------------------------------- tracing


@OLD_JIT
@MODELS
def test_a_script_says_what_to_do_and_leaves_the_model_alone(model: Callable[[], nn.Module]) -> None:
    fast = al.adapt(model().eval())
    before = dict(fast.named_modules())
    with pytest.raises(UnsupportedError, match=r"script the model that was given to adapt\(\)"):
        torch.jit.script(fast)
    assert dict(fast.named_modules()) == before


@OLD_JIT
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@MODELS
def test_a_jit_trace_computes_what_the_model_does(model: Callable[[], nn.Module]) -> None:
    fast = al.adapt(model().eval())
    with torch.no_grad():
        traced = torch.jit.trace(fast, (X,))
        assert_close(first(traced(2 * X)), first(fast(2 * X)), "fp32")


@MODELS
def test_in_a_symbolic_trace_an_lstm_is_one_node(model: Callable[[], nn.Module]) -> None:
    fast = al.adapt(model().eval())
    lstms = [m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM)]
    for lstm in lstms:
        lstm.quantize = al.Quantize("int8")
    graph = torch.fx.symbolic_trace(fast)
    nodes = [node for node in graph.graph.nodes if node.op == "call_module"]
    assert sum(isinstance(graph.get_submodule(str(node.target)), al.AdaptiveLSTM) for node in nodes) == len(lstms)
    assert_equal(first(infer(graph, 2 * X)), first(infer(fast, 2 * X)))
    assert_equal(first(infer(copy.deepcopy(graph), X)), first(infer(fast, X)))


def test_a_symbolic_trace_of_the_lstm_itself() -> None:
    with pytest.raises(UnsupportedError, match="trace a model that holds it"):
        torch.fx.symbolic_trace(adapted(I, H))


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # of plain LSTMs too
@pytest.mark.parametrize("strict", [False, True])
def test_an_export_computes_what_the_model_does(strict: bool, grad: bool) -> None:
    model = Tagger().eval()
    fast = al.adapt(model)
    with torch.set_grad_enabled(grad):
        program = torch.export.export(fast, (X,), strict=strict)
    assert_close(infer(program.module(), 2 * X), infer(model, 2 * X), "fp32")


@pytest.mark.parametrize("grad", [False, True])
def test_aot_module(grad: bool) -> None:
    model = Last().eval()
    fast = al.adapt(model)
    with torch.set_grad_enabled(grad):
        y, want = aot_module(fast, nop)(X), model(X)
    assert_close(y.detach(), want.detach(), "fp32")
    if grad:
        y.sum().backward()
        want.sum().backward()
        for ours, plain in zip(fast.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, plain.grad)
    assert_close(infer(al.adapt(fast), X), infer(model, X), "fp32")  # what a tool leaves behind is no obstacle


# ------------------------------------------------------------------------------------------------------ torch.compile

SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {},
    "int8": {"quantize": al.Quantize("int8")},
    "delta": {"policy": al.Delta.uniform(0.02)},
    "exit in Python": {"policy": al.ExitInTime(lambda s: 9 * s[:, :3], threshold=0.5, check_every=1)},
}
EVERY_SETTING = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def with_settings(lstm: al.AdaptiveLSTM, settings: dict[str, Any]) -> al.AdaptiveLSTM:
    for name, value in settings.items():
        setattr(lstm, name, value)
    return lstm


@EVERY_SETTING
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_runs_what_is_set(backend: str, settings: dict[str, Any], fresh_compiler: None) -> None:
    fast = al.adapt(Last().eval())
    lstm = with_settings(only_lstm(fast), settings)
    compiled = torch.compile(fast, backend=backend)  # its weights are packed inside the first call
    got = infer(compiled, X)
    assert lstm.last_run is not None
    assert lstm.last_run.route.by in ("native", "mixed")
    assert_equal(got, infer(fast, X))


def looped(stream: al.Stream, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([2 * stream.step(row) for row in x])


def in_chunks(stream: al.Stream, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([stream.run(x[:3]), 1 + stream.run(x[3:])])


def moved(stream: al.Stream, x: torch.Tensor) -> torch.Tensor:
    stream.run(x)
    stream.state = state = stream.state
    return stream.step(x[0]) + stream.stats.timesteps + state.h[-1]


@EVERY_SETTING
@pytest.mark.parametrize("function", [looped, in_chunks, moved])
def test_torch_compile_over_a_stream(
    function: Callable[[al.Stream, torch.Tensor], torch.Tensor], settings: dict[str, Any], fresh_compiler: None
) -> None:
    lstm, x = with_settings(adapted(I, H, 2), settings), X.transpose(0, 1).contiguous()
    compiled = torch.compile(function, backend="eager")
    with al.stream(lstm, batch_size=2) as s, al.stream(lstm, batch_size=2) as plain, torch.no_grad():
        for _ in range(2):
            assert_equal(compiled(s, x), function(plain, x))
        assert s.stats == plain.stats


def test_a_compiled_function_may_open_a_stream(fresh_compiler: None) -> None:
    lstm = adapted(I, H, 2, quantize="int8")
    opened = torch.compile(lambda x: al.stream(lstm, batch_size=2).step(x) + 1, backend="eager")
    with torch.no_grad(), al.stream(lstm, batch_size=2) as s:
        assert_equal(opened(X[:, 0].contiguous()), s.step(X[:, 0]) + 1)


# ------------------------------------------------------------------------------------------------- copies and wrappers


def shared(model: nn.Module) -> nn.Module:
    model.share_memory()
    return model


def dynamically_quantized(model: nn.Module) -> Any:
    kinds = {nn.LSTM, nn.Linear}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.ao.quantization.quantize_dynamic(model, kinds)


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
    "torch.save": lambda m: torch.load(saved(m), weights_only=False),
    "share_memory": shared,
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "quantize_dynamic": dynamically_quantized,
}


def saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("ran", [False, True], ids=["fresh", "ran"])
def test_wrappers(ran: bool, wrap: Callable[[nn.Module], Any]) -> None:
    fast = al.adapt(Last().eval())
    only_lstm(fast).quantize = al.Quantize("int8")
    if ran:
        infer(fast, X)
    wrapped = wrap(fast)
    torch.testing.assert_close(infer(wrapped, X), infer(fast, X), rtol=0, atol=0.02)  # int8 of the head, too
    lstm = only_lstm(wrapped)
    assert lstm.quantize == al.Quantize("int8")
    assert lstm.last_run is not None
    assert lstm.last_run.route.by == "native"


def test_functional_call_and_its_transforms() -> None:
    model = Last().eval()
    fast = al.adapt(model)
    other = {name: 2 * value.detach() for name, value in model.named_parameters()}
    want = infer(lambda: torch.func.functional_call(model, other, (X,)))
    assert_close(infer(lambda: torch.func.functional_call(fast, other, (X,))), want, "fp32")
    assert_close(infer(fast, X), infer(model, X), "fp32")  # its own weights are back

    def loss(module: nn.Module, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.as_tensor(torch.func.functional_call(module, weights, (X,))).sum()

    ours, plain = (torch.func.grad(lambda w, m=m: loss(m, w))(other) for m in (fast, model))
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value)
    several = {name: torch.stack([value, value]) for name, value in other.items()}
    with pytest.raises(UnsupportedError, match="put the mapped dimension into the batch"):
        torch.func.vmap(lambda w: loss(fast, w))(several)
    assert_close(infer(fast, X), infer(model, X), "fp32")


# ---------------------------------------------------------------------------------------------------- resizable storage


def runs(fast: nn.Module) -> None:
    infer(fast, X)


def compresses(fast: nn.Module) -> None:
    al.compress(fast, [X] * 4, prune=al.Prune("unit", 0.25), quantize=al.Quantize("int8"))
    al.report(fast)
    infer(fast, X)


def exits(fast: nn.Module) -> None:
    only_lstm(fast).policy = al.ExitInTime(fast.get_submodule("head"), threshold=0.5)
    infer(fast, X)


def streams(fast: nn.Module) -> None:
    with al.stream(only_lstm(fast), batch_size=2) as s:
        s.state = al.StreamState.start(X.new_zeros(1, 2, H), X.new_zeros(1, 2, H))


def runs_in_float64(fast: nn.Module) -> None:
    infer(fast.double(), X.double())


@pytest.mark.parametrize("use", [runs, runs_in_float64, compresses, exits, streams])
def test_storage_of_parameters_stays_resizable(use: Callable[[nn.Module], None]) -> None:
    fast = al.adapt(Last().eval())
    use(fast)
    assert all(p.untyped_storage().resizable() for p in fast.parameters())
    assert X.untyped_storage().resizable()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of torch's own set-up
@pytest.mark.parametrize("settings", [{}, {"quantize": al.Quantize("int8")}], ids=["exact", "int8"])
def test_fully_sharded_models(settings: dict[str, Any]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fast = al.adapt(Last().eval())
    with_settings(only_lstm(fast), settings)
    want = infer(fast, X)
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(only_lstm(fast), mesh=mesh)
        fully_shard(fast, mesh=mesh)
        assert_equal(infer(fast, X), want)
        assert_equal(infer(fast, X), want)
        for use in (lambda: al.stream(only_lstm(fast)), lambda: al.report(fast), lambda: only_lstm(fast).executed()):
            with pytest.raises(al.errors.InputError, match="DTensor on cpu that holds no values here, expected"):
                use()
    finally:
        torch.distributed.destroy_process_group()


@EVERY_SETTING
def test_on_the_meta_device_sizes_come_from_torch(settings: dict[str, Any]) -> None:
    fast = al.adapt(Last().eval())
    with_settings(only_lstm(fast), settings)
    fast.to("meta")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch serves, where something is set
        assert fast(X.to("meta")).shape == infer(al.adapt(Last().eval()), X).shape
    for use in (lambda: al.stream(only_lstm(fast)), lambda: al.report(fast), lambda: al.StreamPool(only_lstm(fast))):
        with pytest.raises(al.errors.InputError, match="on meta that holds no values here"):
            use()


def test_streams_and_pools_are_not_copied() -> None:
    fast = al.adapt(Last().eval())
    lstm = only_lstm(fast)
    pool = al.StreamPool(lstm, capacity=1)
    for held in (al.stream(lstm), pool, al.AsyncStreamPool(lstm, capacity=1)):
        for use in (copy.deepcopy, pickle.dumps):
            with pytest.raises(al.errors.UnsupportedError, match="cannot be copied or pickled"):
                use(held)
    fast.kept = al.stream(lstm)  # type: ignore[assignment]
    with pytest.raises(al.errors.UnsupportedError, match="should open it when it is first needed"):
        al.adapt(fast)


# --------------------------------------------------------------------------------------------------- what is no tensor

ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "list": (lambda: X.tolist(), "got list, expected a torch.Tensor"),
    "numpy": (lambda: X.numpy(force=True).copy(), "got ndarray, expected a torch.Tensor"),
    "string": (lambda: "x", "got str, expected a torch.Tensor"),
    "nothing": (lambda: None, "got NoneType, expected a torch.Tensor"),
    "sparse": (lambda: X.to_sparse(), r"layout torch.sparse_coo, expected a dense one; call .to_dense\(\)"),
    "oneDNN": (lambda: X.contiguous().to_mkldnn(), "layout torch._mkldnn, expected a dense one"),
    "quantized": (lambda: torch.quantize_per_tensor(X.contiguous(), 0.1, 0, torch.qint8), r"call .dequantize\(\)"),
    "nested": (
        lambda: torch.nested.nested_tensor([X[0], X[1, :3]]),
        "nested tensor, .*pack_sequence",
    ),
    "jagged": (lambda: torch.nested.nested_tensor([X[0], X[1, :3]], layout=torch.jagged), "nested tensor"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, of quantized and nested tensors
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(("make", "message"), ODD.values(), ids=ODD)
def test_what_is_no_dense_tensor_is_refused(make: Callable[[], Any], message: str, grad: bool) -> None:
    lstm, x = adapted(I, H, 2), make()
    with torch.set_grad_enabled(grad):
        with pytest.raises(InputError, match=message):
            lstm(x)
        if x is not None:
            with pytest.raises(InputError):
                lstm(X.transpose(0, 1), (x, x))
        for dtype in (torch.float32, torch.float64):
            with al.stream(copy.deepcopy(lstm).to(dtype), batch_size=2) as s:
                for call in (s.step, s.run):
                    with pytest.raises(InputError):
                        call(x)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("hx", [3, "hx", (None, None), (1, 2), [torch.zeros(2, 2, H)], torch.zeros(2, 2, 2, H)])
def test_what_is_no_pair_of_states_is_refused(hx: Any, grad: bool) -> None:
    with torch.set_grad_enabled(grad), pytest.raises(InputError, match="expected"):
        adapted(I, H, 2)(X.transpose(0, 1), hx)
