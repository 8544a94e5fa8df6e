"""Quality against time: the whole harness on the model that ships, who is let in, and which verdicts are given."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import Timing
from adaptive_lstm.cli.demo import digits
from adaptive_lstm.losses import disagreement
from adaptive_lstm.peers import PEERS
from adaptive_lstm.peers.catalog import PeerKind
from adaptive_lstm.peers.contender import BuildRequest, Engine
from eval.frontier import __main__ as frontier
from eval.frontier import field as frontier_field
from eval.frontier.field import Entry
from eval.frontier.quality import OneByOne, Quality, StepByStep, allowed, keeps
from eval.frontier.time import streams
from eval.frontier.verdict import CLOSE, FASTER, NONE, SLOWER, as_text, detail, means, verdict
from eval.shared import common
from eval.zoo import NAMES, load, present
from eval.zoo.base import ZooModel, decisions
from eval.zoo.material import Material, skipping_and

TESTED = 60  # pictures


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(quick=True, json=True, threads=1, objective="macs", results=tmp_path)


@pytest.fixture(scope="module")
def model() -> ZooModel:
    """The digits of the demo as a model of the zoo."""
    images = digits.load_images()
    unlabelled, test = (
        list(digits.read_strips(part, seed).split(1)) for seed, part in enumerate((images.fit, images.test))
    )
    original = digits.load_model()

    @torch.no_grad()
    def measure(model: nn.Module, every: int = 1) -> Mapping[str, float]:
        logits = torch.cat([model(x) for x in test[:TESTED:every]])
        return {"accuracy": float((logits.argmax(1) == images.labels[:TESTED:every]).double().mean())}

    def leaving(fast: nn.Module) -> Any:
        return al.Family(al.ExitInTime, head=fast.get_submodule(digits.HEAD))

    def material() -> Material:
        parts = (unlabelled[:40], unlabelled[40:90], test[100:200], test[200:230])
        return Material(*parts, promise="digits", loss=disagreement, max_loss=0.05, families=skipping_and(leaving))

    return ZooModel(
        name="digits",
        model=original,
        inputs=tuple(test[:8]),
        distance=decisions("digits"),
        measure=measure,
        decisions={"accuracy": TESTED},
        material=material,
    )


def broken(forward: Callable[[Any, Any, Any], Any]) -> PeerKind:
    """A peer in float32 with a forward of its own."""
    return PeerKind("fp32", lambda order: Engine(lambda x: x.clone(), forward, lambda x: x))


def nearly(order: BuildRequest) -> Engine:
    """Gets the values wrong by a little and everything else right."""

    def forward(x: Tensor, h: Tensor, c: Tensor) -> Any:
        y, h, c = order.model(x, h, c)
        return y * 0.99, h, c

    return Engine(lambda x: x.clone(), forward, lambda x: x)


def fails(x: Any, h: Any, c: Any) -> Any:
    raise ArithmeticError("no such kernel")


def test_a_policy_that_asks_for_final_states_is_not_timed_step_by_step(
    model: ZooModel, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exits(model: ZooModel, options: argparse.Namespace) -> dict[str, Any]:
        fast = al.adapt(model.model)
        (lstm,) = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
        translators = al.fit_translators(fast, model.inputs, buckets=1).depth
        lstm.policy = al.ExitInDepth(translators=translators, head=fast.get_submodule(digits.HEAD), threshold=0.9)
        return {"model": fast}

    monkeypatch.setattr(frontier_field, "_certified", exits)
    with common.inference(1):
        record = frontier.examine(model, ("exact", "certified"), options)
    assert "ours certified" in record["seconds"]["whole"]
    assert "ours certified" not in record["seconds"]["step"]
    assert record["verdicts"]["step"]["ours"] == "ours exact"
    assert "ours certified" in detail(record)


def test_the_whole_harness(model: ZooModel, options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times, qualities, verdicts, a record on disk and its tables; who computes something else is not in them."""
    monkeypatch.setitem(PEERS, "nearly", PeerKind("fp32", nearly))
    monkeypatch.setitem(PEERS, "fails", broken(fails))
    monkeypatch.setattr(frontier_field, "TAUS", {"int8": (0.01,)})
    chosen = ("nearly", "fails", "torch int8", "exact", "int8", "int8 raw", "mixed", "delta", "certified")
    with common.inference(1):
        record = frontier.examine(model, chosen, options)
    assert record["unavailable"]["nearly"].startswith("excluded, its output is wrong: differs from torch by")
    assert "no such kernel" in record["unavailable"]["fails"]
    assert {
        "torch",
        "torch int8",
        "ours exact",
        "ours int8",
        "ours int8 raw",
        "ours mixed",
        "ours delta 0.01",
    } <= record["quality"].keys()
    assert record["quality"]["ours exact"]["kept"]
    assert record["quality"]["torch"]["distance"] == 0
    assert record["quality"]["torch int8"]["distance_steps"] is not None
    assert record["every"] == 4
    assert set(record["seconds"]) == set(record["verdicts"]) == {"whole", "model", "step"}
    for use, found in record["verdicts"].items():
        assert found["peer"] in {"torch", "torch int8"}, use
        assert found["ours"].startswith("ours")
        assert record["seconds"][use]["torch"]["median"] > 0
    # A step is one of 64 timesteps of both layers: it cannot take as long as the sequence.
    assert record["seconds"]["step"]["ours int8"]["median"] < record["seconds"]["whole"]["ours int8"]["median"]
    assert "left out: nearly (excluded" in detail(record)

    options.quick = False
    common.save(options, frontier.RECORDS, [record])
    (read,) = [json.loads(line) for line in (options.results / "frontier.jsonl").read_text().splitlines()]
    assert as_text([read]) == as_text([json.loads(json.dumps(record))])
    assert "digits" in as_text([read])


def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, said in ((["--verdicts", "--results", str(tmp_path)], "no records"), ([], "--zoo is needed")):
        with pytest.raises(SystemExit):
            frontier.main(arguments)
        assert said in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- equal quality


@pytest.mark.parametrize(
    ("name", "dense", "got", "kept"),
    [
        ("accuracy", 0.94, 0.93, False),
        ("accuracy", 0.94, 0.95, False),  # another model, not a faster one
        ("sMAPE AEP %", 1.0, 1.009, True),
        ("sMAPE AEP %", 1.0, 1.011, False),
        ("bits/char bronte", 2.0, 1.99, True),
        ("FCD muv tox21", 25.0, 24.0, False),
        ("RMSE", 15.0, float("nan"), False),
    ],
)
def test_equal_quality(name: str, dense: float, got: float, kept: bool) -> None:
    assert keeps(got, dense, allowed(name, dense, 1, {})) is kept


def test_one_decision_is_not_a_loss() -> None:
    slack = allowed("accuracy", 0.94, 1, {"accuracy": 100})
    assert keeps(0.93, 0.94, slack)
    assert not keeps(0.92, 0.94, slack)
    assert allowed("EER", 0.0044, 1, {"EER": 450}) == pytest.approx(1 / 450)


def test_rates_of_decisions_are_figures_of_the_zoo(zoo: Path) -> None:
    for name in present(NAMES, zoo):
        model = load(name, zoo)
        assert model.decisions.keys() <= model.known.keys()


# ------------------------------------------------------------------------------------------- how a peer is called


class PerCall(nn.Module):
    """Like an int8 peer: the scale comes from all that a call is given."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor, hx: Any = None) -> Any:
        return self.lstm((x / x.abs().amax()).round(decimals=1), hx)


@torch.no_grad()
def test_rows_and_steps_are_called_alone() -> None:
    peer: Any = PerCall()
    x = torch.randn(3, 5, 3) * torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    alone = [peer(row) for row in x.split(1)]
    y, (h, c) = OneByOne(peer)(x)
    for got, expected in ((y, [a[0] for a in alone]), (h, [a[1][0] for a in alone]), (c, [a[1][1] for a in alone])):
        torch.testing.assert_close(got, torch.cat(expected, 0 if got is y else 1))
    lengths = (5, 2, 4)
    packed = nn.utils.rnn.pack_sequence([row[:n] for row, n in zip(x, lengths, strict=True)], enforce_sorted=False)
    _, (h, _) = OneByOne(peer)(packed)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(h[:, row], peer(x[row : row + 1, :n])[1][0][:, 0])
    steps, state = [], None
    for t in range(5):
        out, state = peer(x[:1, t : t + 1], state)
        steps.append(out)
    torch.testing.assert_close(StepByStep(peer)(x[:1])[0], torch.cat(steps, 1))


# ------------------------------------------------------------------------------------------------------ verdicts


def taken(name: str, *samples: float) -> Timing:
    return Timing(name, samples, 1, run=7)


def entry(name: str, *, peer: bool = False) -> Entry:
    return Entry(name, peer, "int8" if peer else "", nn.Identity())


def quality(kept: bool, distance: float = 0.0, steps: float | None = None) -> Quality:
    return Quality({}, distance, steps, kept, "" if kept else "worse")


STEADY = (1.0, 1.01, 0.99, 1.0, 1.0)


def judged(ours: tuple[float, ...], **given: Any) -> dict[str, Any]:
    timings = {
        "torch": taken("torch", *(4 * s for s in STEADY)),
        "fast but wrong": taken("fast but wrong", *(s / 10 for s in STEADY)),
        "ORT": taken("ORT", *(2 * s for s in STEADY)),
        "ours": taken("ours", *ours),
    }
    field = [entry("torch", peer=True), entry("fast but wrong", peer=True), entry("ORT", peer=True), entry("ours")]
    qualities = {
        "torch": quality(True),
        "fast but wrong": quality(False, 0.3, given.get("stepwise")),
        "ORT": quality(True),
        "ours": quality(given.get("kept", True), 0.01),
    }
    return verdict(timings, field, qualities, steps=given.get("steps", False))


def test_speed_counts_at_equal_quality_only() -> None:
    found = judged(STEADY)
    assert (found["peer"], found["ours"], found["verdict"]) == ("ORT", "ours", FASTER)
    assert found["best peer"]["median"] == pytest.approx(2, abs=0.05)
    assert found["torch"]["median"] == pytest.approx(4, abs=0.1)
    nobody = judged(STEADY, kept=False)
    assert (nobody["ours"], nobody["verdict"]) == (None, NONE)


def test_peer_that_is_right_step_by_step_counts_in_streams() -> None:
    assert judged(STEADY, stepwise=0.009, steps=True)["peer"] == "fast but wrong"
    assert judged(STEADY, stepwise=0.009, steps=False)["peer"] == "ORT"
    assert judged(STEADY, stepwise=0.02, steps=True)["peer"] == "ORT"


def test_verdict_needs_the_quartiles_on_one_side() -> None:
    assert judged(tuple(2.5 * s for s in STEADY))["verdict"] == SLOWER
    assert judged((1.9, 2.1, 2.0, 2.2, 1.8))["verdict"] == CLOSE
    assert judged((0.5, 2.0, 9.0, 0.4, 7.0))["verdict"] == NONE  # a spread that means nothing


def ratios(name: str, median: float | None, spread: float = 0.05, **more: Any) -> dict[str, Any]:
    low, high = ((median or 1) * (1 - spread), (median or 1) * (1 + spread))
    one = {"median": median, "p25": low, "p75": high}
    return {"group": name, "verdicts": {"whole": {"best peer": one, "torch": one}}, **more}


def test_means_over_the_zoo() -> None:
    found = means([ratios("a-x", 3.0), ratios("a-y", 4.0), ratios("b", 8.0), ratios("c", None)])
    whole = {(one["goal"], one["over"]): one for one in found if one["use"] == "whole"}
    over_models, over_families = whole["best peer", "models"], whole["best peer", "families"]
    assert over_models["median"] == pytest.approx(96 ** (1 / 3))
    assert over_families["median"] == pytest.approx((12**0.5 * 8) ** 0.5)
    assert (over_models["verdict"], whole["torch", "models"]["verdict"]) == ("PASS", "MISS")
    assert over_models["left out"] == ["c"]
    assert means([ratios("b", 4.0)])[0]["verdict"] == CLOSE
    assert all(one["verdict"] == NONE for one in found if one["use"] == "step")


def test_what_can_be_streamed(model: ZooModel) -> None:
    both_ways = ZooModel("x", nn.Sequential(nn.LSTM(2, 2, bidirectional=True)), (), decisions("x"))
    assert streams(model)
    assert not streams(both_ways)
