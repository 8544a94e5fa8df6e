"""``AdaptiveLSTMCell`` in the graphs that torch makes of a loop: one operation for each step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al

from ..support.cells import cell_of
from ..support.helpers import assert_close, assert_equal


class Loop(nn.Module):
    """Three steps of a cell, with states given or not."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = cell_of(6, 9)

    def forward(self, x: torch.Tensor, h: Any = None, c: Any = None) -> Any:
        states = None if h is None else (h, c)
        for _ in range(3):
            states = self.cell(x, states)
        return states


ARGS = torch.randn(3, 6), torch.randn(3, 9), torch.randn(3, 9)
FEWER = tuple(arg[:2] for arg in ARGS)


def loop(precision: Any) -> Any:
    fast: Any = al.adapt(Loop().eval())
    fast.cell.quantize = al.Quantize(precision)
    return fast


def run(model: Any, *args: torch.Tensor) -> Any:
    return model(*args)


def operations(graph: torch.fx.Graph) -> int:
    return sum("adaptive_lstm" in str(node.target) for node in graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@torch.no_grad()
def test_compiled(precision: str) -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.Graph] = []

    def backend(module: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(module.graph)
        return module.forward

    fast = loop(precision)
    compiled = torch.compile(fast, fullgraph=True, backend=backend)
    for args in (ARGS, FEWER, ARGS[:1]):
        assert_equal(run(compiled, *args), run(fast, *args))
    assert {operations(graph) for graph in graphs} == {3}
    fast.cell.quantize = al.Quantize("bf16")
    assert_equal(run(compiled, *ARGS), run(fast, *ARGS))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_exported(precision: str) -> None:
    fast, rows = loop(precision), torch.export.Dim("rows", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(fast, ARGS, dynamic_shapes=({0: rows},) * 3)
        assert operations(program.graph) == 3
        for args in (ARGS, FEWER):
            assert_equal(program.module()(*args), fast(*args))


def test_training_is_compiled_as_torchs_cell() -> None:
    torch._dynamo.reset()
    plain = Loop().train()
    fast = al.adapt(copy.deepcopy(plain))
    for model in (torch.compile(fast, backend="eager", fullgraph=True), plain):
        run(model, *ARGS)[0].sum().backward()
    for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert_close(a.grad, b.grad, "fp32")
