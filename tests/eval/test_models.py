"""The scripts of ``eval/`` that need a model with something to lose, on a small one of generated sequences.

Times on a busy machine say nothing, so no test here compares two of them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import Timing, measure
from adaptive_lstm.losses import disagreement
from eval import compression, limits, pool, split_time, taxonomy, within_budget, zoo
from eval.ablation import __main__ as ablation
from eval.ablation import variants
from eval.frontier.field import lstms_of
from eval.frontier.quality import FIDELITY
from eval.shared import common
from eval.zoo.base import ZooModel, decisions
from eval.zoo.material import Material, skipping_and

from ..support.eval_records import Record, Run, assert_quantiles, of
from ..support.small_task import Classifier, drawn


@pytest.fixture
def tiny_zoo(monkeypatch: pytest.MonkeyPatch) -> ZooModel:
    """A zoo whose every model is one small classifier of generated sequences; races of five rounds."""
    classifier = Classifier(layers=2)
    with torch.no_grad():
        for parameter in classifier.lstm.parameters():
            parameter.mul_(2)
    sequences = [x for x, _ in drawn(200)]

    def leaving(model: nn.Module) -> al.Family:
        return al.Family(al.ExitInTime, head=model.get_submodule("head"), check_every=1)

    def material() -> Material:
        return Material(
            fit=sequences[:60],
            search=sequences[60:80],
            test=sequences[80:160],
            fresh=sequences[160:],
            promise="generated",
            loss=disagreement,
            max_loss=0.2,
            families=skipping_and(leaving),
        )

    model = ZooModel(
        name="tiny",
        model=classifier.eval(),
        inputs=tuple(sequences[:4]),
        distance=decisions("classes"),
        material=material,
    )

    def race(contenders: dict[str, Callable[[], object]], **_: object) -> dict[str, Timing]:
        return measure(contenders, repeats=5, warmup=1, min_time=0)

    monkeypatch.setattr(common, "race", race)
    monkeypatch.setattr(zoo, "load", lambda name, folder: model)
    return model


def ablated(run: Run, *ideas: str) -> list[Record]:
    """What the ablation says of the tiny model."""
    return run(ablation.main, "--quick", "--zoo", "unused", "--models", "fsdd-digits", "--only", ",".join(ideas))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_zoo")
def test_ablation_of_compression(run: Run) -> None:
    found = ablated(run, "precision", "pruning", "ladder")
    assert {record["model"] for record in found} == {"tiny"}
    by = {(record["group"], record["variant"]): record for record in found}
    exact = by["precision", "fp32"]
    assert (exact["distance"], exact["loss"], exact["done"], exact["bytes"]) == (0, 0, 1, 1)
    sizes = [by["precision", name]["bytes"] for name in ("int8", "bf16", "fp32")]
    assert sizes == sorted(sizes)
    for record in found:
        if "refused" in record:
            assert record["variant"].startswith("mixed")  # so few bytes may not be had for a small stack
            continue
        for kind in ("whole", "step"):
            for timing in record["seconds"][kind].values():
                assert_quantiles(timing)
    pruned = [by["pruning", f"unstructured 30%, {how}"] for how in ("none", "mean", "refit")]
    assert [record["settings"]["compensate"] for record in pruned] == ["none", "mean", "refit"]
    assert by["ladder", "fp32"]["distance"] == 0
    assert by["ladder", "int8 + delta"]["done"] < by["ladder", "int8"]["done"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_zoo")
def test_ablation_of_policies(run: Run) -> None:
    found = ablated(run, "thresholds", "policies")
    tracks: dict[tuple[str, str], list[Record]] = {}
    for record in found:
        if "track" in record["settings"]:
            tracks.setdefault((record["group"], record["settings"]["track"]), []).append(record)
    assert ("thresholds", "delta(one threshold)") in tracks
    assert {track for group, track in tracks if group == "policies"} == {
        "delta(gamma=0.5, power=1)",
        "skip(hold_gates)",
        "skip(hold_state)",
        "hold",
        "exit in time(as it is)",
        "exit in time(translated)",
    }
    for (group, track), (careful, bold) in tracks.items():
        if "delta" in track:
            assert bold["done"] < careful["done"] <= 1, (group, track)
        assert ("step" in bold["speed"]) == ("exit" not in track)
    composed = [record for record in found if "parts" in record["settings"]]
    alone = {record["variant"]: record for record in found if "parts" not in record["settings"]}
    assert composed
    for record in composed:
        parts = [alone[name] for name in record["settings"]["parts"]]
        assert len(parts) >= 2
        assert all(part["loss"] <= variants.ALONE * part["max_loss"] for part in parts)


def test_ablation_tells_what_a_model_does_not_allow(tiny_zoo: ZooModel) -> None:
    def make() -> nn.Module:
        raise al.errors.UnsupportedError("not here")

    variant = variants.Variant("impossible", make, tiny_zoo.model)
    found = ablation.judge(variant, variants.subject(tiny_zoo, quick=True), [], quick=True)
    assert found["refused"] == "UnsupportedError: not here"
    assert ablation.row({"variant": "impossible", **found})[:2] == ["impossible", "refused"]


def old_style(main: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """A script that reads the command line of the process."""

    def with_arguments(arguments: list[str]) -> None:
        monkeypatch.setattr("sys.argv", ["script", *arguments])
        main()

    return with_arguments


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_zoo")
def test_taxonomy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    main = old_style(taxonomy.main, monkeypatch)
    found = run(main, "--quick", "--zoo", "unused", "--models", "fsdd-digits")
    assert {(record["saliency"], record["order"], record["refit"]) for record in found} == {
        (saliency, order, refit)
        for saliency, order in taxonomy.ORDERS.items()
        for refit in ((True,) if saliency == "obs" else (False, True))
    }
    for record in found:
        assert (record["group"], record["distance"]) == ("tiny", "classes that differ")
        assert all(0 <= loss <= 1 for loss in record["losses"])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_zoo")
def test_compression(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    main = old_style(compression.main, monkeypatch)
    rows = "fp32;int8;unstructured 30%;2:4;unit 25%, int8"
    found = of(run(main, "--quick", "--zoo", "unused", "--models", "fsdd-digits", "--rows", rows), "tiny")
    assert list(found) == rows.split(";")
    assert (found["fp32"]["fidelity"], found["fp32"]["bytes"], found["fp32"]["zeros"]) == (1, 1, 0)
    assert found["int8"]["bytes"] < 0.7
    assert found["unstructured 30%"]["zeros"] == pytest.approx(0.3, abs=0.1)
    assert found["unit 25%, int8"]["faster_than_unpruned"] > 0


def test_limits(run: Run, tiny_zoo: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of(
        run(old_style(limits.main, monkeypatch), "--quick", "--zoo", "unused", "--models", "fsdd-digits"), "tiny"
    )
    assert set(found) == {"whole", "step"}
    (lstm,), steps = lstms_of(tiny_zoo.model).values(), limits.timesteps(tiny_zoo.inputs)
    whole, step = found["whole"], found["step"]
    limit = limits.whole_limit(lstm, steps, whole["rate"], whole["read"]) / len(tiny_zoo.inputs)
    assert whole["limit"] == pytest.approx(limit)
    assert step["limit"] == pytest.approx(limits.weights(lstm) / step["read"])
    for record in found.values():
        assert_quantiles(record["torch"])
        assert_quantiles(record["ours"])
        assert record["share"] == pytest.approx(record["limit"] / record["ours"]["median"])
    assert whole["call"]["median"] > 0


def test_what_a_timestep_takes_at_least() -> None:
    """By hand: small matrices at the rate of multiplying; a large recurrent one by reading it, which is slower here."""
    small, large = nn.LSTM(8, 16), nn.LSTM(8, 128)
    assert limits.weights(small) == 4 * 16 * (8 + 16)
    assert limits.whole_limit(small, 10, rate=1e9, read=1e6) == pytest.approx(10 * 4 * 16 * 24 / 1e9)
    inputs, recurrent = 4 * 128 * 8, 4 * 128 * 128
    want = 10 * (inputs / 1e9 + (recurrent - limits.NEAREST) / 4e8)
    assert limits.whole_limit(large, 10, rate=1e9, read=4e8) == pytest.approx(want)
    assert limits.whole_limit(large, 10, rate=1e8, read=4e8) == pytest.approx(10 * (inputs + recurrent) / 1e8)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_zoo")
def test_within_budget(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = run(old_style(within_budget.main, monkeypatch), "--quick", "--zoo", "unused", "--models", "fsdd-digits")
    assert found["verdict"] in ("PASS", "MISS")
    assert found["bytes"] == found["tried"][-1]["bytes"] or found["verdict"] == "MISS"
    assert found["worst_of"] == "classes that differ"
    assert (found["worst"] <= 1) == (found["distance"] <= FIDELITY)


def test_split_time(run: Run, tiny_zoo: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_time, "CHUNKS", (8,))
    monkeypatch.setattr(split_time, "WARM_UPS", (1, 4))
    found = run(split_time.main, "--quick", "--zoo", "unused", "--models", "pjm", "--threads", "2")
    assert [(r["group"], r["precision"], r["threads"], r["goal"]) for r in found] == [
        ("tiny", "fp32", 2, None),
        ("tiny", "int8", 2, None),
    ]
    for record in found:
        assert record["timesteps"] == {"lstm": sum(x.shape[1] for x in tiny_zoo.inputs)}
        assert_quantiles(record["seconds"])
        short, long = record["judged"]
        assert short["setting"] == "chunks of 8, warm-up 1"
        assert short["residual"] > long["residual"] > 0
        assert 0 < short["extra"] < long["extra"]
        assert (short["distance"], long["distance"]) <= (1, 1)
    assert al.execution.threads.get_num_threads() == torch.get_num_threads()  # what was set for the race is over


def test_a_setting_that_changes_too_much_wins_nothing() -> None:
    near, far = ({"distance": d, "speed": {"median": m}} for d, m in ((0.001, 1.8), (0.2, 5.0)))
    for goal, judged, verdict in (
        (1.7, [near, far], "PASS"),
        (2.0, [near, far], "MISS"),
        (1.7, [far], "MISS"),
        (1.7, [near, {"distance": 0.0, "speed": {"median": None}}], "n/a"),
        (None, [near], ""),
    ):
        assert split_time.verdict({"goal": goal, "judged": judged}) == verdict


def test_pool(run: Run, tiny_zoo: ZooModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SHAPES", ((3, 8, 1),))
    monkeypatch.setattr(pool, "ROWS", (4,))
    monkeypatch.setattr(pool, "SEATS", 7)
    found = run(pool.main, "--quick", "--zoo", "unused", "--models", "fsdd-digits")
    ticks = of(found, "tick")
    assert list(ticks) == ["(3, 8, 1) fp32, 4 streams", "(3, 8, 1) int8, 4 streams"]
    for record in ticks.values():
        assert record["ratios"].keys() == {"arrays", "dictionary", "every other"}
        for timing in record["seconds"].values():
            assert_quantiles(timing)
    (certified,), held = of(found, "certified").values(), list(of(found, "held").values())
    assert [record["policy"] for record in held] == ["hold_state 0.25", "hold_state 0.5", "hold_gates 0.5"]
    streams = len(pool.recordings(tiny_zoo.prepared(quick=True)))
    for record in (certified, *held):
        assert (record["streams"], record["seats"]) == (streams, 7)
        assert record["times"] == [record["time"]]
        assert record["time"] > 0
    careful, bold, gates = (record["work"] for record in held)
    assert 0 < bold == gates < careful < 1
    assert certified["work"] <= 1


def test_pool_is_judged_by_what_it_skips() -> None:
    tick = {"group": "tick", "most": 1.1}
    for median, verdict in ((1.09, "PASS"), (1.11, "MISS"), (None, "n/a")):
        assert pool.verdict({**tick, "ratios": {"arrays": {"median": median}}}) == verdict
    for taken, verdict in ((0.59, "PASS"), (0.61, "MISS")):
        assert pool.verdict({"group": "held", "work": 0.5, "slack": 0.1, "time": taken}) == verdict
