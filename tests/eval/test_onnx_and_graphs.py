"""``eval.onnx`` and ``eval.graphs`` on the smallest models: what their records say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eval import graphs, onnx

from ..support.eval_records import Run, assert_quantiles, of


def test_onnx(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX files need pip install 'adaptive-lstm[onnx]'")
    monkeypatch.setattr(onnx, "CASES", (((4, 8, 2), True),))
    monkeypatch.setattr(onnx, "LENGTHS", (3,))
    (record,) = of(run(onnx.main, "--quick"), "call").values()
    assert record["case"] == "(4, 8, 2) bidirectional, T 3"
    assert record["seconds"].keys() == set(onnx.NAMES)
    for seconds in record["seconds"].values():
        assert_quantiles(seconds)
    assert record["ratio"] == record["seconds"]["session"]["median"] / record["seconds"]["adapted"]["median"]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * torch.as_tensor(self.lstm(x)[1][0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LENGTHS", (2,))
    with torch.no_grad():
        found = list(graphs.examine(Encoder().eval(), torch.randn(1, 5, 4), "small", quick=True))
    assert [record["case"] for record in found] == ["fp32, T 2", "int8, T 2"]
    for record in found:
        assert record["seconds"].keys() == {"eager", "compiled"}
        assert record["verdict"] in ("PASS", "MISS", "OPEN", "n/a")


def test_a_compiled_model_that_is_another_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: lambda x: model(x) + 1)
    with torch.no_grad(), pytest.raises(RuntimeError, match="the compiled small is not the model: fp32, T 1"):
        list(graphs.examine(Encoder().eval(), torch.randn(1, 5, 4), "small", quick=True))
