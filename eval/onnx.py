"""What does the way through an ONNX file cost? One thread, batch 1, the weights of one ``nn.LSTM`` for all contenders.

``python -m eval.onnx``: stacks exported from torch, exact:

session  ``al.onnx.Session(path).model(x)``
run      ``al.onnx.Session(path).run(None, {"x": x})``, arrays in and out
adapted  ``al.adapt(model)(x)``, the same model in torch
runtime  ``onnxruntime.InferenceSession(path).run(None, {"x": x})``

The bar is BAR: session may take so many times as long as adapted.
"""

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds
from eval.shared import common

BAR = 1.05
CASES: tuple[tuple[tuple[int, int, int], bool], ...] = (
    ((40, 128, 3), False),
    ((40, 256, 3), False),
    ((60, 128, 4), True),
    ((128, 512, 1), False),
)
LENGTHS = (1, 20, 200)
NAMES = {
    "session": "session.model(x)",
    "run": "session.run(None, feed)",
    "adapted": "al.adapt(model)(x)",
    "runtime": "ONNX Runtime",
}


class _Model(nn.Module):
    """Frames [B, T, I] -> logits [B, T, 10]."""

    def __init__(self, size: tuple[int, int, int], bidirectional: bool):
        super().__init__()
        self.lstm = nn.LSTM(*size, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(size[1] * (1 + bidirectional), 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.lstm(x)[0])
        return logits


def exported(model: nn.Module, x: torch.Tensor, folder: Path) -> Path:
    """The ONNX file of a model whose batch size and length are free."""
    path = folder / "model.onnx"
    axes = {"x": {0: "B", 1: "T"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


def contenders(path: Path, model: nn.Module, x: torch.Tensor, threads: int) -> dict[str, Callable[[], object]]:
    """The calls by name; all must give the same."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    runtime = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    session, adapted = al.onnx.Session(path), al.adapt(model)
    feed = {"x": x.numpy()}
    wanted = model(x)
    for got in (session.model(x), adapted(x), torch.from_numpy(runtime.run(None, feed)[0])):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    return {
        "session": lambda: session.model(x),
        "run": lambda: session.run(None, feed),
        "adapted": lambda: adapted(x),
        "runtime": lambda: runtime.run(None, feed),
    }


def examine(*, quick: bool, threads: int) -> Iterator[dict[str, Any]]:
    """One record per case."""
    for size, bidirectional in CASES:
        model = _Model(size, bidirectional).eval()
        with tempfile.TemporaryDirectory() as folder:
            path = exported(model, torch.zeros(1, 2, size[0]), Path(folder))
            for steps in LENGTHS:
                x = torch.randn(1, steps, size[0])
                timings = common.race(contenders(path, model, x, threads), quick=quick, seconds=2)
                yield {
                    "group": "call",
                    "case": f"{size}{' bidirectional' if bidirectional else ''}, T {steps}",
                    "seconds": {who: timing.as_dict() for who, timing in timings.items()},
                    "ratio": timings["session"].median / timings["adapted"].median,
                }


def main(argv: Sequence[str] | None = None) -> None:
    options = common.parser(__doc__).parse_args(argv)
    with common.inference(options.threads):
        common.headline(options)
        records = list(examine(quick=options.quick, threads=options.threads))
    common.save(options, "onnx", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
        return
    rows = [
        [r["case"], *(format_seconds(r["seconds"][who]["median"]) for who in NAMES), f"{r['ratio']:.2f}"]
        for r in records
    ]
    print(common.table("Through an ONNX file", ["case", *NAMES, "session / adapted"], rows))
    above = sum(r["ratio"] > BAR for r in records)
    print(f"\nabove {BAR}: {above} of {len(records)}")


if __name__ == "__main__":
    main()
