"""``compress`` as a whole: in place, undone, reported, and composed with what follows."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.cli.main import main
from adaptive_lstm.compression.output_error import outputs, relative_change
from adaptive_lstm.compression.pruning.prune_model import hold_out
from adaptive_lstm.compression.within_budget import candidates

from ..support.helpers import adapted, always_native, assert_equal, executed_weights, expands, infer, signal

X = signal(40, 16, 6).transpose(0, 1).contiguous()
BATCHES = list(X.split(4))


class Reader(nn.Module):
    """[B, T, 6] -> [B, 3] from the last state."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(6, 24, 2, batch_first=True, **options)
        self.fc = nn.Linear(self.lstm(X)[0].shape[-1], 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.lstm(x)[0][:, -1])
        return y


def reader(**options: Any) -> tuple[Reader, Any]:
    model = Reader(**options).eval()
    return model, al.adapt(model)


def by_sensitivity(pattern: str, sparsity: float) -> al.Prune:
    """Without the search for the best settings, which has its own tests and takes seconds."""
    return al.Prune(pattern, sparsity, saliency="second-order", gamma=0.5, compensate="refit", ridge=0.1)


PRUNES = [by_sensitivity(*each) for each in (("unstructured", 0.3), ("2:4", 0.5), ("column", 0.25), ("unit", 0.25))]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("prune", PRUNES, ids=lambda p: p.pattern)
@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"proj_size": 10}], ids=["plain", "both", "projected"]
)
def test_restore_is_exact_and_the_contract_stays(prune: al.Prune, options: dict[str, Any]) -> None:
    model, fast = reader(**options)
    before = copy.deepcopy(fast.state_dict())
    with always_native():  # the two paths round differently, and which is faster may change meanwhile
        exact = infer(fast, X)
    report = al.compress(fast, BATCHES, prune=prune, quantize=al.Quantize("int8"))
    pruned = infer(fast, X)
    assert not torch.equal(pruned, exact)
    assert fast.lstm.last_run.route.by == "native"
    assert {k: v.shape for k, v in fast.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    for key, value in before.items():
        assert torch.equal(fast.state_dict()[key], value)
    assert infer(fast.lstm, X)[0].shape == infer(model.lstm, X)[0].shape
    assert 0.15 < report.sparsity < 0.6
    al.restore(fast)
    with always_native():
        assert_equal(infer(fast, X), exact)


def test_compressing_again_starts_from_the_original() -> None:
    _, once = reader()
    _, twice = reader()
    al.compress(twice, BATCHES, prune=by_sensitivity("unstructured", 0.7), quantize=al.Quantize("bf16"))
    for fast in (once, twice):
        al.compress(fast, BATCHES, prune=by_sensitivity("unstructured", 0.3), quantize=al.Quantize("int8"))
    assert_equal(infer(once, X), infer(twice, X))


def test_the_report_counts_what_is_there() -> None:
    _, fast = reader()
    report = al.compress(fast, BATCHES, prune=by_sensitivity("unstructured", 0.5), quantize=al.Quantize("int8"))
    assert [m.name for m in report.matrices] == [
        f"lstm.weight_{kind}_l{layer}" for layer in range(2) for kind in ("ih", "hh")
    ]
    for matrix, (cell, kind) in zip(report.matrices, [(p, k) for p in range(2) for k in ("w_ih", "w_hh")], strict=True):
        weights = getattr(executed_weights(fast.lstm)[cell], kind)
        assert matrix.macs == int((weights != 0).sum())
        assert matrix.output_error is not None
        assert matrix.output_error >= 0
    pruned = [m for m in report.matrices if m.name != "lstm.weight_ih_l0"]  # raw columns stay
    assert sum(m.macs for m in pruned) == pytest.approx(0.5 * sum(m.macs_before for m in pruned), rel=0.02)
    assert report.matrices[0].sparsity == 0
    assert report.bytes_after < 0.3 * report.bytes_before
    (lstm,) = report.lstms
    assert lstm.seconds is not None
    assert min(lstm.seconds) > 0
    assert "us" in str(report)
    assert [m.form for m in report.matrices] == ["dense"] * 4  # small: they stay in the caches
    assert [m.idle_zeros for m in pruned] == pytest.approx([m.sparsity for m in pruned], abs=0.05)
    names = ", ".join(m.name for m in pruned)
    assert f"unstructured zeros save no time in {names}: " in str(report)
    assert al.report(fast).matrices == tuple(type(m)(**{**vars(m), "output_error": None}) for m in report.matrices)


def test_the_report_tells_how_matrices_are_executed() -> None:
    """Columns left out, and unstructured zeros where that is worth a form of its own."""
    lstm = al.AdaptiveLSTM(512, 512).eval()
    with torch.no_grad():
        lstm.get_parameter("weight_ih_l0").mul_(torch.rand(2048, 512) < 0.5)
        lstm.get_parameter("weight_hh_l0")[:, 7:9] = 0
    lstm.policy = al.Delta.uniform(0.1)
    x, h = al.report(lstm).matrices
    assert x.form == ("bitmask" if expands() else "dense")
    assert x.idle_zeros == (0 if expands() else pytest.approx(0.5, abs=0.01))
    assert ("save no time in weight_ih_l0" in str(al.report(lstm))) is not expands()
    assert h.form == "dense"
    assert (h.columns_left_out, h.idle_zeros) == (2, 0)
    assert "dense, 2 columns left out" in str(al.report(lstm))


def test_changed_weights_are_noticed() -> None:
    _, fast = reader()
    al.compress(fast, BATCHES, prune=by_sensitivity("unstructured", 0.3))
    with torch.no_grad():
        fast.lstm.weight_hh_l0.mul_(1.5)
    with pytest.raises(al.AdaptiveLSTMError, match="changed since they were pruned or rounded"):
        infer(fast, X)
    al.compress(fast, BATCHES, prune=by_sensitivity("unstructured", 0.3))  # as the message says
    infer(fast, X)
    with torch.no_grad():
        fast.lstm.weight_hh_l0.mul_(1.5)
    al.restore(fast)
    infer(fast, X)


def test_a_certificate_compares_with_the_model_before_pruning() -> None:
    _, fast = reader()
    al.compress(fast, BATCHES, prune=al.Prune("unit", 0.9, saliency="magnitude", compensate="none"))
    sequences = [(x[None], None) for x in signal(40, 300, 6, seed=3).transpose(0, 1)]
    exact = Reader().eval()
    differs = [bool(infer(fast, x).argmax() != infer(exact, x).argmax()) for x, _ in sequences]
    assert sum(differs) / len(differs) > 0.15
    found = al.calibrate(
        fast, sequences, loss=al.losses.disagreement, max_loss=0.1, confidence=0.9, policies=[al.Delta]
    )
    assert not found.certified


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(1e-9)], ids=["dense", "delta"])
@pytest.mark.parametrize("options", [{}, {"proj_size": 10}], ids=["plain", "projected"])
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_statistics_count_what_is_left(policy: al.Policy, options: dict[str, Any]) -> None:
    """Pruned units take no rows, and the columns that read them are not sent."""
    _, fast = reader(**options)
    al.compress(fast, BATCHES, prune=by_sensitivity("unit", 0.5))
    fast.lstm.policy = policy
    infer(fast, X)
    stats, left = fast.lstm.last_run, 0
    for cell in executed_weights(fast.lstm):
        live = 24 if cell.live is None else int(cell.live.sum())
        columns = sum(int(nonzero.sum()) for nonzero in cell.nonzero_columns)
        left += 4 * live * columns + live * options.get("proj_size", 0)
    assert 0.2 < left * stats.timesteps / stats.macs_possible < 0.9
    assert stats.macs == pytest.approx(left * stats.timesteps, rel=0 if isinstance(policy, al.Dense) else 0.02)


def test_a_pruned_model_skips_and_streams() -> None:
    _, fast = reader()
    al.compress(fast, BATCHES, prune=by_sensitivity("unit", 0.25), quantize=al.Quantize("int8"))
    dense = infer(fast.lstm, X[:1])[0]
    with al.stream(fast.lstm, batch_size=1) as steps:
        streamed = torch.stack([steps.step(x).clone() for x in X[0].split(1)], dim=1)
    assert_equal(streamed, dense)
    fast.lstm.policy = al.Delta.uniform(0.02)
    before = fast.lstm.last_run.activity
    skipped = infer(fast.lstm, X[:1])[0]
    assert 0 < (skipped - dense).abs().max() < 0.2
    assert fast.lstm.last_run.activity < 0.9 * before


def test_a_budget_is_kept_and_used() -> None:
    _, fast = reader()
    fast.lstm.policy = al.Delta.uniform(0.3)  # what is skipped is not what the budget is about
    exact = outputs(al.adapt(Reader().eval()), BATCHES[-1:])
    sizes = []
    for change in (1e-6, 0.02, 0.4):
        sizes.append(al.compress_within(fast, BATCHES, change).bytes_after)
        assert isinstance(fast.lstm.policy, al.Delta)
        fast.lstm.policy = al.Dense()
        assert relative_change(exact, outputs(fast, BATCHES[-1:])) <= change
        fast.lstm.policy = al.Delta.uniform(0.3)
    assert sizes[0] > sizes[1] > sizes[2]
    for wrong, inputs in ((0.0, BATCHES), (0.1, BATCHES[:3])):
        with pytest.raises(al.AdaptiveLSTMError, match="got"):
            al.compress_within(fast, inputs, wrong)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("wide", [False, True])
def test_a_budget_is_met_with_the_fewest_bytes_first(pattern: str, wide: bool) -> None:
    _, fast = reader()
    sizes = []
    for prune, precisions in candidates(pattern, al.Quantize("int8"), wide=wide):
        quick = prune and dataclasses.replace(prune, saliency="second-order", gamma=0.5, compensate="refit", ridge=0.1)
        sizes.append([al.compress(fast, BATCHES, prune=quick, quantize=one).bytes_after for one in precisions])
    *pruned, plain, [half], [bf16] = sizes
    assert len(pruned) == (3 if pattern == "unstructured" else 1)
    for same, levels in [*((one, 2) for one in pruned), (plain, 3)]:
        raw, dynamic, rest = same[: -levels - 2], same[-levels - 2 : -levels], same[-levels:]
        assert (len(raw), len(dynamic)) == ((levels, 2) if wide else (0, 0))
        assert len(set(raw)) == len(set(dynamic)) <= 1 == len(set(rest))
        assert all(small < large for small, large in zip(dynamic, raw, strict=False))  # no scales of columns
        assert all(small < large for small, large in zip(raw, rest, strict=False))
    if not wide:
        groups = [*pruned, plain]
        assert all(max(small) < min(large) for small, large in itertools.pairwise(groups))
    assert half < 1.15 * plain[-1] < bf16


def test_a_wide_input_in_int8_is_tried_before_it_is_left_in_bfloat16() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(60, 12, batch_first=True).eval()
    batches = [signal(8, 20, 60, seed=i) for i in range(4)]
    dense, fast = outputs(model, batches[-1:]), al.adapt(model)
    changes = []
    for raw in ("int8", "bf16"):
        al.compress(fast, batches[:-1], quantize=al.Quantize("int8", raw=raw, levels=8191))
        changes.append(relative_change(dense, outputs(fast, batches[-1:])))
    assert changes[0] > 1.2 * changes[1]
    found = []
    for change in (0.02, 1.1 * changes[1], 0.1 * changes[1]):
        found.append(al.compress_within(fast, batches, change).matrices[0].precision)
        assert relative_change(dense, outputs(fast, batches[-1:])) <= change
    assert found == ["int8", "bf16", "fp32"]
    narrow = nn.LSTM(4, 12, num_layers=3, batch_first=True).eval()
    report = al.compress_within(al.adapt(narrow), [x[:, :, :4] for x in batches], 0.05)
    assert [m.precision for m in report.matrices] == ["bf16", *["int8"] * 5]


def test_items_that_judge() -> None:
    assert hold_out(range(9)) == ([1, 2, 3, 5, 6, 7], [8, 4, 0])
    assert hold_out(["a", "b"]) == (["a"], ["b"])


def test_refusals_change_nothing() -> None:
    _, fast = reader()
    al.compress(fast, quantize=al.Quantize("bf16"))
    before = infer(fast, X)
    bad: list[Any] = [{"prune": al.Prune()}, {"inputs": BATCHES, "prune": "half"}, {"inputs": [], "prune": al.Prune()}]
    bad += [{"inputs": [X * float("nan")], "prune": al.Prune()}]
    for arguments in bad:
        with pytest.raises(al.AdaptiveLSTMError, match=r"."):
            al.compress(fast, **arguments)
        assert_equal(infer(fast, X), before)


def test_the_command_line_writes_what_load_reads(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "digits.alstm"
    assert main(["compress", "--pattern", "unit", "--sparsity", "0.1", "--out", str(file)]) == 0
    assert "weight_hh_l1" in capsys.readouterr().out
    assert main(["report", str(file)]) == 0
    told = capsys.readouterr().out
    assert "int8" in told
    assert "no certificate" in told
    assert main(["compress", "--pattern", "sideways", "--sparsity", "0.1", "--out", str(file)]) == 2
    assert "sideways" in capsys.readouterr().err
    assert main(["compress", "--pattern", "2:4", "--sparsity", "0.9", "--out", str(file)]) == 2
    assert "which removes 0.5" in capsys.readouterr().err
    assert adapted(3, 4).replaced is None
