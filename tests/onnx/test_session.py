"""``Session``: node by node against ONNX Runtime over all options, exported models, branches, and wrong feeds."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, UnsupportedError
from tests.onnx.graphs import Array, B, H, I, T, by_reference, by_runtime, feed_of, model, one_node, uniform, weights
from tests.onnx.models import Tagger, exported
from tests.support.helpers import infer, torch_lstm

EXACT = 1e-5


def assert_same(got: Sequence[Array], wanted: Sequence[Array]) -> None:
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=0, atol=EXACT)


def turned(name: str, value: Array) -> Array:
    """From layout 1 to layout 0, and from inputs of the one to those of the other."""
    return value.transpose(1, 2, 0, 3) if name == "Y" else value if name == "lengths" else value.swapaxes(0, 1)


@pytest.mark.parametrize("lengths", [None, (T, T, T), (T, 2, 4), (3, 0, 5), (0, 0, 0)])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_one_node(direction: str, layout: int, lengths: tuple[int, ...] | None) -> None:
    """ONNX Runtime knows layout 0 only: a node of layout 1 must give what the same node of layout 0 gives, turned."""
    used = [["Y"], ["Y_h"], ["Y_c"], ["Y", "Y_c"], ["Y", "Y_h", "Y_c"]]
    for biases, states, outputs in itertools.product((True, False), (True, False), used):
        options: dict[str, Any] = {
            "biases": biases,
            "states": states,
            "lengths": lengths is not None,
            "outputs": outputs,
        }
        data, plain = (one_node(direction, layout=n, **options) for n in (layout, 0))
        feed = feed_of(data)
        if lengths is not None:
            feed["lengths"] = np.array(lengths, np.int32)
        session = al.onnx.Session(data)
        got = session.run(None, feed)
        if layout == 1:
            got = [turned(name, value) for name, value in zip(outputs, got, strict=True)]
            feed = {name: np.ascontiguousarray(turned(name, value)) for name, value in feed.items()}
        assert_same(got, by_runtime(plain, feed))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_layout_1_equals_the_reference_of_onnx(direction: str) -> None:
    data = one_node(direction, layout=1, states=True)
    feed = feed_of(data)
    assert_same(al.onnx.Session(data).run(None, feed), by_reference(data, feed))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
def test_a_stack_with_states_of_every_layer(direction: str, lengths: bool) -> None:
    """Joined, with the states of both layers given and read, and a third that starts at zero."""
    d = 2 if direction == "bidirectional" else 1
    nodes, consts = [], {"axis": np.array([1]), "shape": np.array([0, 0, -1])}
    inputs: dict[str, Sequence[int | str | None]] = {"X0": ("t", "b", I)}
    outputs = []
    for n in range(3):
        consts |= {f"{kind}{n}": v for kind, v in weights(d, I if n == 0 else d * H, H, seed=n).items()}
        states = [f"h{n}", f"c{n}"] if n < 2 else []
        inputs |= dict.fromkeys(states, (d, "b", H))
        made = [f"Y{n}", f"Yh{n}", f"Yc{n}"]
        outputs += made[1:]
        given = [f"X{n}", f"W{n}", f"R{n}", f"B{n}", "lengths" if lengths else "", *states]
        nodes.append(helper.make_node("LSTM", given, made, f"l{n}", hidden_size=H, direction=direction))
        nodes.append(helper.make_node("Transpose", [f"Y{n}"], [f"Z{n}"], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [f"Z{n}", "shape"], [f"X{n + 1}"]))
    if lengths:
        inputs["lengths"] = ("b",)
    data = model(nodes, inputs, ["X3", *outputs], consts, types={"lengths": int(onnx.TensorProto.INT32)})
    feed = {
        name: uniform(*(B if s == "b" else T if s == "t" else int(s or 0) for s in shape), seed=len(name))
        for name, shape in inputs.items()
    }
    feed |= {"lengths": np.array([2, T, 0], np.int32)} if lengths else {}
    session = al.onnx.Session(data)
    assert [lstm.num_layers for lstm in session.lstms.values()] == [3]
    assert_same(session.run(None, feed), by_runtime(data, feed))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_model_that_torch_exported(tmp_path: Path, bidirectional: bool, given: bool, dynamo: bool) -> None:
    tagger, x = Tagger(bidirectional), torch.randn(3, 11, 12)
    state = tuple(torch.randn(4 if bidirectional else 2, 3, 16) for _ in range(2))
    inputs = (x, *state) if given else (x,)
    path = exported(tagger, inputs, tmp_path / "tagger.onnx", dynamo=dynamo)
    session, runtime = al.onnx.Session(path), onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for kind in ("get_inputs", "get_outputs"):
        ours, theirs = ([(v.name, v.type) for v in getattr(s, kind)()] for s in (session, runtime))
        assert ours == theirs
    assert [v.shape for v in session.get_inputs()] == [v.shape for v in runtime.get_inputs()]
    assert [lstm.num_layers for lstm in session.lstms.values()] == [2, 1]
    feed = {v.name: value.numpy() for v, value in zip(session.get_inputs(), inputs, strict=True)}
    assert_same(session.run(None, feed), runtime.run(None, feed))
    names = [v.name for v in session.get_outputs()]
    assert_same(session.run(names[1:], feed), runtime.run(names[1:], feed))
    tensors = infer(session.model, *inputs)
    assert_same([t.numpy() for t in tensors], [t.numpy() for t in infer(tagger, *inputs)])
    assert_same(
        [t.numpy() for t in session.model(**dict(zip(feed, inputs, strict=True)))], [t.numpy() for t in tensors]
    )


def branch(name: str, nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [value])


def lstm_nodes(key: str, source: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("LSTM", [source, f"W{key}", f"R{key}", f"B{key}"], [f"Y{key}"], name=key, hidden_size=H),
        helper.make_node("Squeeze", [f"Y{key}", "axis"], [f"S{key}"]),
    ]


def branched(
    condition: Sequence[onnx.NodeProto], inputs: Mapping[str, Sequence[int | str | None]], **types: int
) -> bytes:
    """An LSTM, then one of two others, one of them beside a branch without any; all read values around them."""
    inner = helper.make_node(
        "If",
        ["cond"],
        ["I"],
        then_branch=branch("deep", [*lstm_nodes("c", "M"), helper.make_node("Add", ["Sc", "M"], ["D"])], "D"),
        else_branch=branch("flat", [helper.make_node("Neg", ["M"], ["F"])], "F"),
    )
    node = helper.make_node(
        "If",
        ["cond"],
        ["Z"],
        then_branch=branch("then", [inner, helper.make_node("Relu", ["I"], ["K"])], "K"),
        else_branch=branch("else", lstm_nodes("b", "M"), "Sb"),
    )
    nodes = [
        *lstm_nodes("a", "X"),
        helper.make_node("Mul", ["Sa", "two"], ["M"]),
        *condition,
        node,
        helper.make_node("Add", ["Z", "M"], ["V"]),
    ]
    values = {
        f"{kind}{key}": v
        for n, key in enumerate("abc")
        for kind, v in weights(1, I if key == "a" else H, H, 7 * n).items()
    }
    consts: dict[str, Array] = values | {
        "axis": np.array([1]),
        "two": np.array([2], np.float32),
        "zero": np.array(0.0, np.float32),
    }
    return model(nodes, {"X": ("t", "b", I), **inputs}, ["V"], consts, types=types)


@pytest.mark.parametrize("level", [-1.0, 1.0])
def test_branches(level: float) -> None:
    """The condition is computed in the graph."""
    data = branched([helper.make_node("Greater", ["level", "zero"], ["cond"])], {"level": ()})
    session, feed = al.onnx.Session(data), {"X": uniform(T, B, I), "level": np.array(level, np.float32)}
    assert session.lstms.keys() == {"a", "b", "c"}
    assert_same(session.run(None, feed), by_runtime(data, feed))


def test_a_condition_that_never_changes() -> None:
    """The branch that never runs has no modules."""
    always = helper.make_node("Constant", [], ["cond"], value=onnx.numpy_helper.from_array(np.array(False)))
    data = branched([always], {})
    session, feed = al.onnx.Session(data), {"X": uniform(T, B, I)}
    assert session.lstms.keys() == {"a", "b"}
    assert_same(session.run(None, feed), by_runtime(data, feed))


def test_a_loop_is_refused_by_name() -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [*lstm_nodes("a", "x"), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            info("n", onnx.TensorProto.INT64, []),
            info("go", onnx.TensorProto.BOOL, []),
            info("x", onnx.TensorProto.FLOAT, None),
        ],
        [info("on", onnx.TensorProto.BOOL, []), info("Sa", onnx.TensorProto.FLOAT, None)],
    )
    loop = helper.make_node("Loop", ["count", "", "X"], ["V"], name="again", body=body)
    values = {f"{kind}a": v for kind, v in weights(1, H, H).items()} | {"axis": np.array([1]), "count": np.array(2)}
    data = model([loop], {"X": (T, B, H)}, ["V"], values)
    with pytest.raises(UnsupportedError, match="LSTM a lies in the body of Loop again"):
        al.onnx.Session(data)
    assert al.onnx.load_lstms(data).keys() == {"a"}


@pytest.fixture(scope="module")
def session() -> al.onnx.Session:
    return al.onnx.Session(one_node(states=True, lengths=True))


GOOD = feed_of(one_node(states=True, lengths=True))


@pytest.mark.parametrize(
    ("names", "feed", "words"),
    [
        (["Z"], GOOD, "output_names: got 'Z', expected some of Y, Y_h, Y_c"),
        (None, [1], "input_feed: got .*, expected a dict of arrays"),
        (None, {"X": GOOD["X"]}, "inputs: missing 'lengths', 'h', 'c'; expected 'X', 'lengths', 'h', 'c'"),
        (None, GOOD | {"W": GOOD["X"]}, "inputs: unknown 'W'; expected"),
        (
            None,
            GOOD | {"X": GOOD["X"].astype(np.float64)},
            r"input X: got float64, expected float32 \[time, batch, 5\]",
        ),
        (None, GOOD | {"X": GOOD["X"].tolist()}, "input X: got list, expected float32"),
        (
            None,
            GOOD | {"X": GOOD["X"][..., :4]},
            r"input X: got shape \(7, 3, 4\), expected float32 \[time, batch, 5\]",
        ),
        (None, GOOD | {"X": GOOD["X"][0]}, r"input X: got shape \(3, 5\)"),
        (
            None,
            GOOD | {"lengths": np.array([1, 2, 8], np.int32)},
            r"lengths: got \[1, 2, 8\], expected 3 whole numbers from 0 to 7",
        ),
        (None, GOOD | {"lengths": np.array([1, 2], np.int32)}, r"lengths: got \[1, 2\], expected 3"),
        (None, GOOD | {"h": GOOD["h"][:, :2]}, r"initial state h: got shape \(1, 2, 8\), expected \(1, 3, 8\) for"),
    ],
)
def test_wrong_feeds(session: al.onnx.Session, names: Any, feed: Any, words: str) -> None:
    before = session.run(None, GOOD)
    with pytest.raises(InputError, match=words):
        session.run(names, feed)
    for one, other in zip(session.run(None, GOOD), before, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(*[torch.zeros(1)] * 5), "inputs: got 5, expected 4: X, lengths, h, c"),
        (lambda m: m(torch.zeros(T, B, I), X=torch.zeros(T, B, I)), "got X twice"),
        (lambda m: m(torch.zeros(T, B, I, dtype=torch.float64), lengths=0, h=0, c=0), "input X: got float64"),
    ],
)
def test_wrong_calls(session: al.onnx.Session, call: Callable[[nn.Module], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(session.model)


def test_only_a_copy_of_its_model_can_be_assigned(session: al.onnx.Session) -> None:
    other = al.onnx.Session(one_node(direction="reverse"))
    kept = session.model
    with pytest.raises(InputError, match="model: got Linear, expected a copy of this session's model"):
        session.model = nn.Linear(1, 1)
    assert session.model is kept
    tagged = al.onnx.Session(branched([helper.make_node("Greater", ["level", "zero"], ["cond"])], {"level": ()}))
    with pytest.raises(InputError, match="expected a copy"):
        tagged.model = other.model
    session.model = copy.deepcopy(kept)
    assert session.model is not kept


def test_a_read_only_feed_and_one_that_is_not_contiguous(session: al.onnx.Session) -> None:
    wanted = session.run(None, GOOD)
    frozen = {name: value.copy() for name, value in GOOD.items()}
    for value in frozen.values():
        value.flags.writeable = False
    assert_same(session.run(None, frozen), wanted)
    strided = GOOD | {"X": np.ascontiguousarray(GOOD["X"].transpose(1, 2, 0)).transpose(2, 0, 1)}
    assert_same(session.run(None, strided), wanted)


def test_threads_and_copies(tmp_path: Path) -> None:
    """Other numbers of threads, deep copies and pickles give the same."""
    path = exported(Tagger(True), (torch.randn(3, 11, 12),), tmp_path / "tagger.onnx")
    session, x = al.onnx.Session(path), torch.randn(3, 9, 12)
    wanted = [t.numpy() for t in session.model(x)]
    al.set_num_threads(2)
    try:
        assert_same([t.numpy() for t in session.model(x)], wanted)
    finally:
        al.set_num_threads(None)
    buffer = io.BytesIO(pickle.dumps(session.model))
    for model_ in (copy.deepcopy(session.model), pickle.load(buffer)):
        assert_same([t.numpy() for t in model_(x)], wanted)


def test_names_that_modules_cannot_have() -> None:
    names = ["a.b", "a_b", "keys", ""]
    nodes = [helper.make_node("LSTM", ["X", "W", "R"], [f"Y{n}"], name, hidden_size=H) for n, name in enumerate(names)]
    data = model(nodes, {"X": (T, B, I)}, [f"Y{n}" for n in range(4)], weights(1, I, H))
    session, feed = al.onnx.Session(data), {"X": uniform(T, B, I)}
    assert list(session.lstms) == ["a.b", "a_b", "keys", "LSTM_3"]
    assert_same(session.run(None, feed), by_runtime(data, feed))


def test_float64() -> None:
    values = {kind: value.astype(np.float64) for kind, value in weights(2, I, H).items()}
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], "rnn", hidden_size=H, direction="bidirectional")
    types = dict.fromkeys(("X", "Y"), int(onnx.TensorProto.DOUBLE))
    data = model([node], {"X": (T, B, I)}, ["Y"], values, types=types)
    x = uniform(T, B, I).astype(np.float64)
    (y,) = al.onnx.Session(data).run(None, {"X": x})
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, by_reference(data, {"X": x})[0], rtol=0, atol=EXACT)


def test_custom_operators_of_onnx_runtime() -> None:
    """Values whose types only ONNX Runtime can tell cross the cut."""
    nodes = [
        helper.make_node("Gelu", ["X"], ["G"], domain="com.microsoft"),
        helper.make_node("LSTM", ["G", "W", "R"], ["Y"], "rnn", hidden_size=H),
        helper.make_node("Squeeze", ["Y", "axis"], ["S"]),
        helper.make_node("MatMul", ["S", "M"], ["P"]),
        helper.make_node("Add", ["P", "G"], ["Z"]),
    ]
    consts = weights(1, I, H) | {"axis": np.array([1]), "M": uniform(H, I)}
    made = onnx.load_model_from_string(model(nodes, {"X": (T, B, I)}, ["Z"], consts))
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    data, feed = bytes(made.SerializeToString()), {"X": uniform(T, B, I)}
    assert_same(al.onnx.Session(data).run(None, feed), by_runtime(data, feed))


def test_an_lstm_whose_outputs_nobody_reads() -> None:
    """As in graphs that an optimizer left behind: it does not run, and has no module."""
    nodes = [
        helper.make_node("LSTM", ["X", "W", "R"], ["Y"], "used", hidden_size=H),
        helper.make_node("LSTM", ["X", "W", "R"], ["V"], "unused", hidden_size=H),
    ]
    data = model(nodes, {"X": (T, B, I)}, ["Y"], weights(1, I, H))
    assert al.onnx.Session(data).lstms.keys() == {"used"}
    assert al.onnx.load_lstms(data).keys() == {"used", "unused"}


def test_weights_given_as_inputs_too() -> None:
    """As old files state initializers: they are constants, and no inputs of a session."""
    made = onnx.load_model_from_string(one_node())
    for kind, value in weights(1, I, H).items():
        made.graph.input.append(helper.make_tensor_value_info(kind, onnx.TensorProto.FLOAT, value.shape))
    session = al.onnx.Session(made.SerializeToString())
    assert [v.name for v in session.get_inputs()] == ["X"]


def test_of_a_zeroed_state_nothing_is_left(tmp_path: Path) -> None:
    """Torch writes zeros of the batch's size; they are recognised, so that a call is one without states."""
    lstm = torch_lstm(I, H, 2)
    path = exported(lstm, (torch.zeros(T, B, I),), tmp_path / "lstm.onnx")
    session = al.onnx.Session(path)
    (module,) = session.lstms.values()
    seen: list[Any] = []
    with module.watched_by(lambda call: seen.append(call.hx)):
        session.model(torch.zeros(T, B + 1, I))
    assert seen == [None]


def test_no_rows() -> None:
    session = al.onnx.Session(one_node("bidirectional"))
    y, h, c = session.run(None, {"X": np.zeros((T, 0, I), np.float32)})
    assert (y.shape, h.shape, c.shape) == ((T, 2, 0, H), (2, 0, H), (2, 0, H))
