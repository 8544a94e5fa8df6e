"""Policies together: several at once do what plain loops do, in whole sequences and in streams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm.policies import DepthTranslators, Map, TimeTranslators

from ..support import by_hand
from ..support.by_hand import Rule
from ..support.helpers import adapted, assert_close, assert_equal, infer, signal

pytestmark = pytest.mark.usefixtures("float64_on_reference")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H, L, C, T = 8, 3, 4, 24


def drawn(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def depth_maps(D: int = 1) -> DepthTranslators:
    steps = tuple(Map(drawn(D * H, (k + 1) * D * H, seed=k, scale=0.5), drawn(D * H, seed=k)) for k in range(L - 1))
    return DepthTranslators(steps, steps)


def head(D: int = 1) -> al.LinearHead:
    return al.LinearHead(drawn(C, D * H, seed=7), drawn(C, seed=8))


TIME_MAP = Map(drawn(H, L * H, seed=3), drawn(H, seed=4))
TIME = al.ExitInTime(
    head(), threshold=0.75, measure="max", translators=TimeTranslators((0,), (TIME_MAP,)), check_every=3, patience=2
)
SKIP, SKIP_RULE = al.SkipTimesteps(x_share=0.4, cap=3), Rule(0.4, None, "hold_gates", 3)
HOLD, HOLD_RULE = al.HoldLayers(x_share=(None, 0.3), cap=4), Rule(0.3, None, "hold_state", 4)
COPY, COPY_RULE = al.SkipTimesteps(x_share=0.4, h=0.1, mode="hold_state"), Rule(0.4, 0.1, "hold_state")


def stacked(policy: al.Policy, D: int = 1) -> al.AdaptiveLSTM:
    lstm = adapted(I, H, L, bidirectional=D == 2, policy=policy).double()
    with torch.no_grad():
        for parameter in lstm.parameters():  # states that move more than those of fresh weights
            parameter.mul_(3)
    return lstm


def by_map(m: Map, states: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(m.weight).to(states) @ states.flatten() + torch.as_tensor(m.bias).to(states)


def is_sure(z: torch.Tensor, threshold: float, D: int = 1) -> bool:
    logits = torch.as_tensor(head(D).weight).to(z) @ z + torch.as_tensor(head(D).bias).to(z)
    return by_hand.confidence(logits.softmax(0), "max") > threshold


def translate(D: int) -> by_hand.Translate:
    def trusted(layer: int, states: torch.Tensor) -> torch.Tensor | None:
        z = by_map(depth_maps(D).steps[layer], states)
        return z if is_sure(z, 0.8, D) else None

    return trusted


# --------------------------------------------------------------------------------------------------------- compositions


@settings(max_examples=40)
@given(
    st.sampled_from([(), (SKIP,), (COPY,), (HOLD,), (SKIP, HOLD), (COPY, HOLD)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["forward", "both ways", "in time"]),
    st.lists(st.integers(1, T), min_size=1, max_size=3),
    st.integers(0, 99),
)
@example((SKIP, HOLD), False, True, "both ways", [3], 3)  # the top layer holds gates before it ever ran
def test_together_they_do_what_plain_loops_do(
    held: tuple[al.Policy, ...], delta: bool, depth: bool, way: str, lengths: list[int], seed: int
) -> None:
    D = 2 if way == "both ways" else 1
    rules = {(2 if p is HOLD else 0): {SKIP: SKIP_RULE, COPY: COPY_RULE, HOLD: HOLD_RULE}[p] for p in held}
    policies: list[al.Policy] = [
        *held,
        *([al.Delta.uniform(0.05)] if delta else []),
        *([TIME] if way == "in time" else []),
    ]
    policies += (
        [al.ExitInDepth(translators=depth_maps(D), head=head(D), threshold=0.8, measure="max", level="step")]
        if depth
        else []
    )
    lstm = stacked(al.Combined(*policies), D)
    x = signal(T, len(lengths), I, seed=seed, step=0.3).double()
    packed, (h, c) = infer(lstm, pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False))
    y, stats, shape = pad_packed_sequence(packed)[0], lstm.last_run, lstm.stack_shape
    assert stats is not None
    sent, moved, ran, exits = 0, 0, [0] * shape.num_cells, 0
    for row, length in enumerate(lengths):
        some: dict[str, Any] = {"delta": 0.05 if delta else None, "translate": translate(D) if depth else None}
        want = by_hand.run(lstm, x[:length, row], rules, **some)
        want_y, (want_h, want_c) = want.y, want.end
        if way == "in time":
            when, translation, _ = by_hand.exit_in_time(
                want.h, lambda t, h: by_map(TIME_MAP, h), lambda t, z, past: is_sure(z, 0.75), every=3, patience=2
            )
            if when is not None:
                exits += 1
                before = by_hand.run(lstm, x[: when + 1, row], rules, **some)
                want_y = torch.cat([before.y[:-1], translation.expand(length - when, -1)])
                want_h, want_c, want = torch.cat([before.h[-1, :-1], translation[None]]), before.c[-1], before
        assert_close((y[:length, row], h[:, row], c[:, row]), (want_y, want_h, want_c), "fp64")
        sent += sum(sum(s) for s in want.sent)
        ran = [r + did.count("run") for r, did in zip(ran, want.did, strict=True)]
        moved += sum(did.count("run") + did.count("hold_gates") for did in want.did)
    assert [col.ran for col in stats.columns] == ran
    assert sum(col.advanced for col in stats.columns) == moved
    assert stats.macs == 4 * H * sent + stats.policy_macs
    assert stats.macs_possible == sum(lengths) * sum(shape.step_macs(cell) for cell in range(shape.num_cells))
    assert stats.exits == exits


@pytest.mark.parametrize(
    "skip", [SKIP, COPY, al.Combined(COPY, al.Delta.uniform(0.05))], ids=["gates", "state", "and delta"]
)
@pytest.mark.parametrize("D", [1, 2])
def test_sequences_that_stay_keep_their_own_skipped_steps(D: int, skip: al.Policy) -> None:
    # The layers above must hold the rows that the first layer held, also when others have left in between.
    depth = al.ExitInDepth(translators=depth_maps(D), head=head(D), threshold=0.7 if D == 1 else 0.95, measure="max")
    lstm, x = stacked(al.Combined(skip, depth), D), signal(T, 6, I, step=0.3).double()
    y, (h, c) = infer(lstm, x)
    stats = lstm.last_run
    assert stats is not None
    assert 0 < stats.exits < 6
    total = al.types.Counts.none(lstm.stack_shape).columns
    for row in range(6):
        alone, (h_1, c_1) = infer(lstm, x[:, row])
        assert_close((alone, h_1, c_1), (y[:, row], h[:, row], c[:, row]), "fp64")
        assert lstm.last_run is not None
        total = tuple(a.plus(b) for a, b in zip(total, lstm.last_run.columns, strict=True))
    assert total == stats.columns


@pytest.mark.parametrize("in_time", [False, True])
def test_catching_up_with_delta_and_an_exit_in_time(in_time: bool) -> None:
    late = al.HoldLayers(x_share=(None, 0.5), mode="queue_input", cap=4)
    lstm = stacked(al.Combined(al.Delta.uniform(0.05), late, *([TIME] if in_time else [])))
    x = signal(T, 5, I, seed=2, step=0.3).double()
    y, (h, c) = infer(lstm, x)
    exits = stale = 0
    for row in range(5):
        exact, used, seen = by_hand.run(lstm, x[:, row], delta=0.05), 0, []
        for t in range(T):
            change = exact.h[t, 1] - exact.h[used, 1]
            if not (0 < t - used <= 4 and by_hand.rms(change) < 0.5 * by_hand.rms(exact.h[used, 1])):
                used = t
            seen.append(used)
        states, cells = exact.h.clone(), exact.c.clone()
        states[:, 2], cells[:, 2] = exact.h[seen, 2], exact.c[seen, 2]  # of the top layer as of the last step that ran
        stale += sum(t != u for t, u in enumerate(seen))
        when, z, _ = by_hand.exit_in_time(
            states, lambda t, h: by_map(TIME_MAP, h), lambda t, z, past: is_sure(z, 0.75), every=3, patience=2
        )
        if not in_time or when is None:
            assert_close((y[:, row], h[:, row], c[:, row]), (states[:, 2], states[-1], cells[-1]), "fp64")
            continue
        exits += 1
        assert_close(y[:, row], torch.cat([states[:when, 2], z.expand(T - when, -1)]), "fp64")
        assert_close((h[:2, row], h[2, row], c[:, row]), (states[when, :2], z, cells[when]), "fp64")
    assert stale > 10
    assert exits > 1 or not in_time


LATER = replace(TIME, threshold=0.999)
STREAMED = {
    "columns, steps, layers, time": al.Combined(al.Delta.uniform(0.05), SKIP, HOLD, LATER),
    "columns, copies, depth, time": al.Combined(
        al.Delta.uniform(0.05),
        COPY,
        al.ExitInDepth(translators=depth_maps(), head=head(), threshold=0.8, measure="max", level="step"),
        LATER,
    ),
    "columns, catching up, time": al.Combined(
        al.Delta.uniform(0.05), al.HoldLayers(x_share=(None, 0.5), mode="queue_input"), LATER
    ),
}


@pytest.mark.parametrize("policy", STREAMED.values(), ids=STREAMED)
def test_streams_in_any_chunks(policy: al.Combined) -> None:
    lstm, x = stacked(policy), signal(T, 5, I, step=0.3).double()
    stats = []
    with al.stream(lstm, batch_size=5) as s:
        whole = s.run(x)
        end, left = s.state, s.exited
        stats.append(s.stats)
    assert 0 < stats[0].exits < 5
    assert stats[0].macs < stats[0].macs_possible
    for chunks in ([1] * T, [3, 0, 8, 1, 1, 11]):
        with al.stream(lstm, batch_size=5) as s:
            assert_close(torch.cat([s.run(part) for part in x.split(chunks)]), whole, "fp64")
            assert_close((s.state.h, s.state.c), (end.h, end.c), "fp64")
            assert torch.equal(s.exited, left)
            stats.append(s.stats)
    assert stats[0] == stats[1] == stats[2]
    with al.stream(lstm, batch_size=5) as s, al.stream(lstm, batch_size=5) as other:
        for t in range(T):  # the state carries everything: two streams take turns
            s, other = other, s
            s.state = other.state
            assert_close(s.step(x[t]), whole[t], "fp64")
        assert torch.equal(s.exited, left)
        s.reset()
        assert_equal(s.run(x), whole)


def test_combining_is_flat_and_in_any_order() -> None:
    nested = al.Combined(al.Combined(HOLD, al.Delta.uniform(0.05)), al.Combined(), TIME, al.Dense())
    assert nested.policies == (HOLD, al.Delta.uniform(0.05), TIME, al.Dense())
    lstm, x = stacked(nested), signal(T, 3, I).double()
    y = infer(lstm, x)
    stats = lstm.last_run
    lstm.policy = al.Combined(TIME, HOLD, al.Delta.uniform(0.05))
    assert_equal(infer(lstm, x), y)
    assert lstm.last_run == stats
    lstm.policy = al.Combined()
    infer(lstm, x)
    assert lstm.last_run is not None
    assert lstm.last_run.activity == 1.0
