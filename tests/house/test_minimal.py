"""The one file that is run on every built wheel, from outside the checkout: it imports nothing else of tests/."""

import importlib.metadata

import torch
from torch import nn

import adaptive_lstm as al


class Model(nn.Module):
    """A two-layer LSTM inside a model, as a user has it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output, _ = self.lstm(x)
        scores: torch.Tensor = self.head(output)
        return scores


def test_the_native_backend_is_there() -> None:
    info = al.backend_info()
    assert info.backend == "native"
    assert info.isa
    assert info.compiler


@torch.no_grad()
def test_adapted_model_is_exact() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    x = torch.randn(1, 20, 12)
    fast = al.adapt(model)
    assert isinstance(fast.lstm, al.AdaptiveLSTM)
    assert not isinstance(model.lstm, al.AdaptiveLSTM)
    torch.testing.assert_close(fast(x), model(x), rtol=0.0, atol=1e-5)
    assert fast.lstm.last_run is not None
    assert fast.lstm.last_run.timesteps == 20
    assert fast.lstm.last_run.macs == fast.lstm.last_run.macs_possible > 0


@torch.no_grad()
def test_stream_equals_the_whole_sequence() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(12, 24, num_layers=2).eval()
    x = torch.randn(20, 1, 12)
    expected, _ = lstm(x)
    with al.stream(al.AdaptiveLSTM.from_lstm(lstm), batch_size=1) as stream:
        steps = torch.stack([stream.step(x[t]) for t in range(10)])
        rest = stream.run(x[10:])
    torch.testing.assert_close(torch.cat([steps, rest]), expected, rtol=0.0, atol=1e-5)


def test_only_the_package_is_installed() -> None:
    files = importlib.metadata.files("adaptive-lstm")
    assert files
    tops = {file.parts[0] for file in files}
    assert not tops & {"policies", "eval", "tests"}
    assert not [file for file in files if file.suffix == ".cpp" or "native" in file.parts]  # export/c is C to copy
