"""``load_lstms``: every LSTM of a file as a module, against ONNX Runtime; what is refused, and how."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.errors import ModelFileError, UnsupportedError
from tests.onnx.graphs import B, H, I, T, by_reference, by_runtime, feed_of, model, one_node, uniform, weights
from tests.onnx.models import exported
from tests.support.helpers import assert_close, assert_equal, infer, torch_lstm

DIRECTIONS = ("forward", "reverse", "bidirectional")


def as_node(lstm: nn.LSTM, feed: Mapping[str, Any], direction: str) -> list[torch.Tensor]:
    """Y, Y_h and Y_c of layout 0, computed by a module that takes what ``nn.LSTM`` takes."""
    x, h, c, lengths = (torch.from_numpy(feed[k]) if k in feed else None for k in ("X", "h", "c", "lengths"))
    assert x is not None
    state = None if h is None else (h, c)
    order = torch.arange(T)[:, None].expand(T, B)
    if direction == "reverse":
        last = torch.full((B,), T) if lengths is None else lengths.long()
        order = torch.where(order < last, last - 1 - order, order)
        x = x.gather(0, order[:, :, None].expand_as(x))
    if lengths is None:
        y, (h_n, c_n) = infer(lstm, x, state)
    else:
        packed, (h_n, c_n) = infer(lstm, pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        y, _ = pad_packed_sequence(packed, total_length=T)
    if direction == "reverse":
        y = y.gather(0, order[:, :, None].expand_as(y))
    return [y.reshape(T, B, -1, H).transpose(1, 2), h_n, c_n]


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("biases", "states", "lengths"), list(itertools.product((True, False), repeat=3)))
def test_one_node(direction: str, biases: bool, states: bool, lengths: bool) -> None:
    data = one_node(direction, biases=biases, states=states, lengths=lengths)
    loaded = al.onnx.load_lstms(data)
    assert loaded.keys() == {"rnn"}
    lstm, feed = loaded["rnn"], feed_of(data)
    assert (lstm.bias, lstm.bidirectional, lstm.batch_first) == (biases, direction == "bidirectional", False)
    assert not lstm.training
    assert_close(as_node(lstm, feed, direction), [torch.from_numpy(a) for a in by_runtime(data, feed)], "fp32")


@pytest.mark.parametrize("states", [False, True])
def test_batch_first(states: bool) -> None:
    data = one_node("bidirectional", layout=1, states=states)
    feed = {name: torch.from_numpy(value) for name, value in feed_of(data).items()}
    lstm = al.onnx.load_lstms(data)["rnn"]
    assert lstm.batch_first
    hx = (feed["h"].transpose(0, 1).contiguous(), feed["c"].transpose(0, 1).contiguous()) if states else None
    y, (h_n, c_n) = infer(lstm, feed["X"], hx)
    wanted = [torch.from_numpy(a) for a in by_reference(data, feed_of(data))]
    assert_close([y.reshape(B, T, 2, H), h_n.transpose(0, 1), c_n.transpose(0, 1)], wanted, "fp32")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_a_stack_that_torch_exported(tmp_path: Path, bidirectional: bool, batch_first: bool, folded: bool) -> None:
    lstm = torch_lstm(I, H, 3, bidirectional=bidirectional, batch_first=batch_first)
    path = exported(lstm, (torch.zeros(2, 2, I),), tmp_path / "stack.onnx", do_constant_folding=folded)
    ((name, loaded),) = al.onnx.load_lstms(path).items()
    assert name == next(node.name for node in onnx.load(path).graph.node if node.op_type == "LSTM")
    assert_equal(list(loaded.parameters()), list(lstm.parameters()))


def chained(between: list[onnx.NodeProto], *, reads: str = "", **second: Any) -> bytes:
    """Two nodes with some nodes from "Y1" to "X2" between; ``reads``: an output of the graph besides."""
    one, two = weights(1, I, H), weights(1, H, second.pop("hidden_size", H), seed=9)
    hidden = two["R"].shape[2]
    nodes = [
        helper.make_node("LSTM", ["X", "W1", "R1", "B1"], ["Y1", "H1", "C1"], name="low", hidden_size=H),
        *between,
        helper.make_node(
            "LSTM", ["X2", "W2", "R2", *second.pop("read", [])], ["Y"], "high", hidden_size=hidden, **second
        ),
    ]
    named = {f"{k}1": v for k, v in one.items()} | {f"{k}2": v for k, v in two.items()}
    consts = {
        "axis": np.array([1]),
        "shape": np.array([0, -1, H]),
        "mixed": np.array([1, -1, H]),
        "fixed": np.array([T, B, H]),
        "half": uniform(1),
    }
    return model(nodes, {"X": ("t", "b", I)}, ["Y", *filter(None, [reads])], named | consts)


SQUEEZE = [helper.make_node("Squeeze", ["Y1", "axis"], ["X2"])]


@pytest.mark.parametrize(
    ("data", "layers"),
    [
        pytest.param(chained(SQUEEZE), [2], id="squeezed"),
        pytest.param(chained(SQUEEZE, reads="H1"), [2], id="the state is read"),
        pytest.param(chained(SQUEEZE, reads="Y1"), [1, 1], id="the inner output is read"),
        pytest.param(chained(SQUEEZE, reads="X2"), [1, 1], id="the inner input is read"),
        pytest.param(chained(SQUEEZE, hidden_size=H + 1), [1, 1], id="another hidden size"),
        pytest.param(chained(SQUEEZE, direction="reverse"), [1, 1], id="another direction"),
        pytest.param(chained(SQUEEZE, read=["", "", "H1", "C1"]), [1, 1], id="states of the first start the second"),
        pytest.param(chained([helper.make_node("Reshape", ["Y1", "shape"], ["X2"])]), [2], id="reshaped"),
        pytest.param(
            chained([helper.make_node("Reshape", ["Y1", "mixed"], ["X2"])]), [1, 1], id="rows mixed with time"
        ),
        pytest.param(chained([helper.make_node("Reshape", ["Y1", "fixed"], ["X2"])]), [1, 1], id="for one size only"),
        pytest.param(
            chained(
                [*[helper.make_node("Squeeze", ["Y1", "axis"], ["S"])], helper.make_node("Mul", ["S", "half"], ["X2"])]
            ),
            [1, 1],
            id="scaled between",
        ),
        pytest.param(
            chained(
                [
                    helper.make_node("Squeeze", ["Y1", "axis"], ["S"]),
                    helper.make_node("Transpose", ["S"], ["U"], perm=[1, 0, 2]),
                    helper.make_node("Transpose", ["U"], ["X2"], perm=[1, 0, 2]),
                ]
            ),
            [2],
            id="turned and turned back",
        ),
    ],
)
def test_joined_where_the_graph_lets_them(data: bytes, layers: list[int]) -> None:
    loaded = al.onnx.load_lstms(data)
    assert list(loaded) == ["low", "high"][: len(layers)]
    assert [lstm.num_layers for lstm in loaded.values()] == layers


def test_a_shape_that_the_graph_fixes() -> None:
    """As exporters write it that know one size only: where Y has no other, a Reshape to that size is a move."""
    made = onnx.load_model_from_string(chained([helper.make_node("Reshape", ["Y1", "fixed"], ["X2"])]))
    made.graph.value_info.append(helper.make_tensor_value_info("Y1", onnx.TensorProto.FLOAT, (T, 1, B, H)))
    assert [lstm.num_layers for lstm in al.onnx.load_lstms(made.SerializeToString()).values()] == [2]


def test_weights_behind_constants() -> None:
    """As Constant nodes, transposed, sliced, cast and dequantized."""
    values = weights(1, I, H)
    scale, small = np.float32(0.01), np.arange(-16 * H, 16 * H).reshape(4 * H, H).astype(np.int8)
    nodes = [
        helper.make_node("Constant", [], ["Wt"], value=onnx.numpy_helper.from_array(values["W"][0].T.copy())),
        helper.make_node("Transpose", ["Wt"], ["Wu"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["Wu", "zero"], ["W"]),
        helper.make_node("DequantizeLinear", ["Rq", "scale"], ["Ru"]),
        helper.make_node("Unsqueeze", ["Ru", "zero"], ["R"]),
        helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=H),
    ]
    consts = {"zero": np.array([0]), "Rq": small, "scale": np.asarray(scale)}
    lstm = al.onnx.load_lstms(model(nodes, {"X": (T, B, I)}, ["Y"], consts))["LSTM_0"]
    direct = [helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=H)]
    plain = {"W": values["W"], "R": (small * scale).astype(np.float32)[None]}
    wanted = al.onnx.load_lstms(model(direct, {"X": (T, B, I)}, ["Y"], plain))["LSTM_0"]
    assert_equal(list(lstm.parameters()), list(wanted.parameters()))


def test_names() -> None:
    """Unnamed nodes are numbered by their place among the LSTMs; equal names are told apart."""
    values = weights(1, I, H)
    nodes = [
        helper.make_node("LSTM", ["X", "W", "R"], [f"Y{n}"], name=name, hidden_size=H)
        for n, name in enumerate(("a", "", "a", ""))
    ]
    data = model(nodes, {"X": (T, B, I)}, [f"Y{n}" for n in range(4)], values)
    assert list(al.onnx.load_lstms(data)) == ["a", "LSTM_1", "a_2", "LSTM_3"]


def test_a_reverse_node_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "adaptive_lstm"):
        al.onnx.load_lstms(one_node("reverse", name="back"))
    assert "back" in caplog.text


def peepholes() -> bytes:
    node = helper.make_node("LSTM", ["X", "W", "R", "", "", "", "", "P"], ["Y"], name="rnn", hidden_size=H)
    return model([node], {"X": (T, B, I)}, ["Y"], weights(1, I, H) | {"P": np.zeros((1, 3 * H), np.float32)})


def dynamic() -> bytes:
    nodes = [
        helper.make_node("Add", ["R0", "shift"], ["R"]),
        helper.make_node("LSTM", ["X", "W", "R"], ["Y"], name="rnn", hidden_size=H),
    ]
    values = weights(1, I, H)
    values["R0"] = values.pop("R")
    return model(nodes, {"X": (T, B, I), "shift": (1,)}, ["Y"], values)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (peepholes(), "LSTM rnn: input P: peepholes"),
        (dynamic(), "LSTM rnn: input R: got 'R', which is computed at run time"),
        (one_node(clip=3.0), "LSTM rnn: attribute clip: got 3"),
        (one_node(input_forget=1), "LSTM rnn: attribute input_forget: got 1"),
        (
            one_node(activations=["HardSigmoid", "Tanh", "Relu"]),
            "LSTM rnn: attribute activations: got HardSigmoid, Tanh, Relu, expected Sigmoid, Tanh, Tanh",
        ),
    ],
    ids=["peepholes", "dynamic", "clip", "input_forget", "activations"],
)
def test_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        al.onnx.load_lstms(data)


def test_the_usual_activations_may_be_written_out() -> None:
    data = one_node("bidirectional", activations=["Sigmoid", "tanh", "Tanh"] * 2)
    assert al.onnx.load_lstms(data)["rnn"].bidirectional


def test_files_that_hold_no_lstm(tmp_path: Path) -> None:
    gru = helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=H)
    with pytest.raises(ModelFileError, match="no node of the kind LSTM; it holds GRU"):
        al.onnx.load_lstms(model([gru], {"X": (T, B, I)}, ["Y"], weights(1, I, H)))
    body = helper.make_graph([gru], "body", [], [helper.make_empty_tensor_value_info("Y")])
    branch = helper.make_node("If", ["which"], ["Z"], then_branch=body, else_branch=body)
    with pytest.raises(ModelFileError, match="no node of the kind LSTM; it holds GRU"):
        al.onnx.load_lstms(model([branch], {"X": (T, B, I)}, ["Z"], {**weights(1, I, H), "which": np.array([True])}))
    product = helper.make_node("MatMul", ["X", "M"], ["gates"])
    squashed = [helper.make_node(kind, ["gates"], [kind]) for kind in ("Sigmoid", "Tanh")]
    cell = model([product, *squashed], {"X": (T, I)}, ["Sigmoid", "Tanh"], {"M": np.zeros((I, H), np.float32)})
    with pytest.raises(ModelFileError, match=r"products of matrices, Sigmoid and Tanh .* given to al\.from_gates"):
        al.onnx.load_lstms(cell)
    with pytest.raises(ModelFileError, match=r"missing\.onnx cannot be read"):
        al.onnx.load_lstms(tmp_path / "missing.onnx")
    (tmp_path / "noise.onnx").write_bytes(b"\x93NUMPY and so on")
    with pytest.raises(ModelFileError, match="is no ONNX file"):
        al.onnx.load_lstms(tmp_path / "noise.onnx")
    with pytest.raises(ModelFileError, match="holds no node"):
        al.onnx.load_lstms(b"")


def test_impossible_sizes() -> None:
    values = weights(1, I, H) | {"R": uniform(1, 4 * H, H + 1)}
    node = helper.make_node("LSTM", ["X", "W", "R"], ["Y"], name="rnn", hidden_size=H)
    with pytest.raises(ModelFileError, match=r"LSTM rnn: input R: got shape \(1, 32, 9\), expected \(1, 32, 8\)"):
        al.onnx.load_lstms(model([node], {"X": (T, B, I)}, ["Y"], values))


def test_inside_a_body() -> None:
    """The weights may lie in the body or around it."""
    values = weights(1, I, H)
    body = helper.make_graph(
        [helper.make_node("LSTM", ["X", "W", "R"], ["Z"], name="inner", hidden_size=H)],
        "then",
        [],
        [helper.make_tensor_value_info("Z", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(values["R"], "R")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["X"], ["V"])],
        "else",
        [],
        [helper.make_tensor_value_info("V", onnx.TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["cond"], ["Y"], then_branch=body, else_branch=other)
    types = {"cond": int(onnx.TensorProto.BOOL)}
    data = model([node], {"X": (T, B, I), "cond": ()}, ["Y"], {"W": values["W"]}, types=types)
    assert al.onnx.load_lstms(data)["inner"].input_size == I


def test_a_missing_package_is_named() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import adaptive_lstm as al\n"
        "try: al.onnx.load_lstms('any.onnx')\n"
        "except al.errors.UnsupportedError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'adaptive-lstm[onnx]'" in run.stdout, run.stderr
