"""``deploy`` needs neither torch nor scipy nor tqdm: not to load, not to run, not to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import adaptive_lstm as al
from adaptive_lstm import bench

from ..support.artifact_cases import certificate_of, lstm_of
from ..support.helpers import infer_natively, native_only, signal
from ..support.policy_cases import SHAPES

pytestmark = native_only
ROOT = Path(__file__).resolve().parents[2]
BLOCKED = "import sys; sys.modules.update(dict.fromkeys(('torch', 'scipy', 'tqdm')))\n"


def alone(code: str, *arguments: str) -> str:
    """What a process without those packages prints."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKED + code, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


RUN = """
import numpy as np
import pytest
from adaptive_lstm import deploy
lstm = deploy.load(sys.argv[1]).lstm
x = np.load(sys.argv[2])
y, (h, c), stats = lstm.run(x, lengths=[3, len(x)])
stream = lstm.stream(2)
steps = np.stack([stream.step(frame) for frame in x])
pool = lstm.stream_pool(2)
streams = [pool.open(), pool.open()]
served = []
for frame in x:
    pool.push_each(streams, frame)
    served.append(list(pool.tick().values()))
streams[0] = pool.restore(pool.snapshot(pool.close(streams[0]) or streams[1]))
np.savez(sys.argv[3], y=y, h=h, c=c, steps=steps, served=np.array(served))
print(stats.macs, stats.route)
"""


def test_the_same_results(tmp_path: Path) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    fast.quantize, fast.policy = al.Quantize("int8"), al.Combined(al.Delta.uniform(0.02), al.SkipTimesteps(x_share=0.1))
    al.save(fast, tmp_path / "model.alstm", weights=True)
    x = signal(11, 2, 5)
    np.save(tmp_path / "x.npy", x.numpy())
    printed = alone(RUN, *(str(tmp_path / name) for name in ("model.alstm", "x.npy", "out.npz")))
    got = np.load(tmp_path / "out.npz")
    y, (h, _) = infer_natively(fast, x[:, 1:].contiguous())
    np.testing.assert_array_equal(got["y"][:, 1:], y.numpy())
    np.testing.assert_array_equal(got["h"][:, 1:], h.numpy())
    assert not got["y"][3:, 0].any()
    with al.stream(fast, 2) as stream:
        np.testing.assert_array_equal(got["steps"], stream.run(x).numpy())
    np.testing.assert_allclose(got["served"], got["steps"], rtol=0, atol=1e-6)  # Delta on the raw input, in float32
    assert printed.split()[1] == "native"


def test_measuring(tmp_path: Path) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["both ways"])).eval()
    al.save(fast, tmp_path / "model.alstm", weights=True)
    bench = "from adaptive_lstm.deploy.__main__ import main\nsys.exit(main(['bench', *sys.argv[1:]]))"
    found = json.loads(alone(bench, str(tmp_path / "model.alstm"), "--json", "--repeats", "4"))
    assert found["machine"]["torch"] is None
    (one,) = found["lstms"]
    assert one["step"] is None  # both ways: no stream
    assert 0 < one["timestep"][1] <= one["timestep"][0] <= one["timestep"][2]
    table = alone(bench, "--repeats", "4")
    assert "3 x 256, int8, Delta" in table


TOLD = """
import sys, warnings
from adaptive_lstm import deploy
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    model = deploy.load(sys.argv[1])
print(model.certificate["savings"]["cpu"], sys.modules.get("torch"), len(told), *(w.message for w in told))
print(*(w.filename for w in told))
"""


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("here", [False, True])
def test_a_file_tells_of_another_machine(tmp_path: Path, blocked: bool, here: bool) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    fast.policy = al.Delta.uniform(0.02)
    savings = {"macs": 0.3, "time": 0.4, "time_quartiles": [0.39, 0.42], "use": "stream", "threads": 1}
    savings |= {"cpu": bench.cpu_model() if here else "Another CPU", "isa": al.backend_info().isa}
    al.save(fast, tmp_path / "m.alstm", weights=True, certificate=certificate_of(fast, savings=savings))
    run = subprocess.run(
        [sys.executable, "-c", (BLOCKED if blocked else "") + TOLD, str(tmp_path / "m.alstm")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    told, filename = run.stdout.splitlines()
    assert f"{savings['cpu']} None {0 if here else 1}" in told
    assert ("timed on Another CPU" in told and "time left: 40%" in told) is not here
    assert filename == ("" if here else "<string>")
