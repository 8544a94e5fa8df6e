"""The end of the process: nothing is printed, whoever still holds an LSTM or a stream."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOLDERS = {
    "daemon thread": """
def work():  # a thread that is inside torch at the end aborts the process with plain torch too
    with torch.no_grad():
        mine = al.stream(lstm)
        mine.step(x[0])
        lstm(x)
    started.set()
    threading.Event().wait()
threading.Thread(target=work, daemon=True).start()
started.wait()
""",
    "module": "sys.held = al.stream(lstm); sys.held.step(x[0])",
    "cycle": "held = [al.stream(lstm), lstm.executor()]; held.append(held); sys.held = held",
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_the_process_ends_in_silence(holder: str) -> None:
    program = f"""
import sys, threading, torch
import adaptive_lstm as al
started = threading.Event()
lstm = al.AdaptiveLSTM(4, 8).eval()
lstm.policy = al.Delta.uniform(0.01)
x = torch.randn(5, 1, 4)
{holder}
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
