"""Where and when is work skipped? One input, read step by step by a certified policy: layer x timestep activity.

``python -m eval.heatmap`` calibrates the embedded digit reader as ``adaptive-lstm demo`` does and streams one held-out
picture; ``--zoo PATH`` does the same with the speaker encoder and real speech. A record holds, per layer,

- x, h: the share of the input and of the hidden columns that each step sent, from the statistics of the stream;
- columns: which of them, one bit each, [T, width + H] with x first, zlib and base64. They come from
  exact fp32 weights on the reference executor: the native core counts columns, it does not list them.

``done``: the share of a step's multiply-accumulates that were done; ``left``: the steps read before the exit.
"""

import argparse
import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import adaptive_lstm as al
from adaptive_lstm.cli.demo import digits
from adaptive_lstm.cli.demo.run import calibrated, int8
from adaptive_lstm.cli.demo.task import DemoTask
from adaptive_lstm.execution.reference import trace
from eval import demo
from eval.shared import common

PICTURE_DIGITS = 3  # of the shown input, which is drawn in grey


def activity(lstm: al.AdaptiveLSTM, x: torch.Tensor) -> dict[str, Any]:
    """The columns that a stream over x [T, I] sent, step by step; steps after the exit send nothing."""
    cells = lstm.num_layers * (2 if lstm.bidirectional else 1)
    rows: list[dict[str, Any]] = [{"layer": k + 1, "x": [0.0] * len(x), "h": [0.0] * len(x)} for k in range(cells)]
    done, left = [0.0] * len(x), len(x)
    with torch.no_grad(), al.stream(lstm, batch_size=1) as session:
        before = session.stats
        for t, frame in enumerate(x.split(1)):
            session.step(frame)
            now = session.stats
            done[t] = (now.macs - before.macs) / max(1, now.macs_possible - before.macs_possible)
            for row, a, b in zip(rows, before.columns, now.columns, strict=True):
                row["x"][t] = _share(b.x_sent - a.x_sent, b.x_possible - a.x_possible)
                row["h"][t] = _share(b.h_sent - a.h_sent, b.h_possible - a.h_possible)
            before = now
            if bool(session.exited.all()):
                left = t + 1
                break
    return {"rows": rows, "done": done, "left": left}


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def pack(sent: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """[T, N] bools as text for a JSON record; ``unpack`` is the way back."""
    bits = zlib.compress(np.packbits(sent).tobytes(), 9)
    return {"shape": list(sent.shape), "bits": base64.b64encode(bits).decode("ascii")}


def unpack(packed: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """[T, N] bools, the inverse of ``pack``."""
    steps, columns = packed["shape"]
    bits = np.frombuffer(zlib.decompress(base64.b64decode(packed["bits"])), np.uint8)
    return np.unpackbits(bits, count=steps * columns).reshape(steps, columns).astype(np.bool_)


def record(name: str, task: DemoTask) -> dict[str, Any]:
    """One model: its certified policy, and the columns of the shown input that it skipped."""
    fast = int8(task.model)
    result = calibrated(task, fast)
    lstm = fast.lstm
    assert isinstance(lstm, al.AdaptiveLSTM)
    found = activity(lstm, task.shown)
    sent = trace(task.model.lstm, lstm.policy, task.shown)
    for columns in sent:
        columns[found["left"] :] = False
    picture = task.picture.float().numpy()
    low, high = float(picture.min()), float(picture.max())
    return {
        "group": name,
        "case": "certified",
        "title": task.title,
        "certified": result.certified,
        "policy": result.certificate.policy,
        "max_loss": task.max_loss,
        "loss": task.loss.name,
        "confidence": task.confidence,
        **found,
        "columns": [pack(columns) for columns in sent],
        "hidden": lstm.hidden_size,
        "picture": np.round((picture - low) / max(high - low, 1e-9), PICTURE_DIGITS).tolist(),
    }


def _text(found: dict[str, Any]) -> str:
    rows = [
        [f"layer {row['layer']}", *(f"{np.mean(row[operand][: found['left']]):.0%}" for operand in ("x", "h"))]
        for row in found["rows"]
    ]
    title = f"{found['title']}: {found['policy']}; {found['left']} of {len(found['done'])} steps read"
    done = f"{np.mean(found['done']):.0%} of the multiply-accumulates of the sequence were done"
    return f"{common.table(title, ['columns sent', 'x', 'h'], rows)}\n{done}"


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, help="folder of pretrained models, for the speaker encoder; see eval/zoo")
    options: argparse.Namespace = parser.parse_args()
    with common.inference(options.threads):
        common.headline(options)
        tasks = {"digits": digits.load_task}
        if options.zoo is not None:
            tasks["resemblyzer"] = lambda: demo.load_task(options.zoo)
        for name, load in tasks.items():
            with torch.enable_grad():  # a calibration measures sensitivities
                found = record(name, load())
            print(json.dumps(found) if options.json else _text(found), flush=True)
            common.save(options, "heatmap", [found])


if __name__ == "__main__":
    main()
