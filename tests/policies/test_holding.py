"""Skipped timesteps and held layers: who is held when, what a held layer does, and what that costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al

from ..support import by_hand
from ..support.by_hand import Rule
from ..support.helpers import adapted, assert_close, assert_equal, infer, signal, torch_lstm

pytestmark = pytest.mark.usefixtures("float64_on_reference")

I = 5  # noqa: E741 (the letter of the input size everywhere)
H = 9
NULL = {
    "x": al.SkipTimesteps(x_share=0.0),
    "h": al.SkipTimesteps(x_share=None, h=0.0, mode="hold_state"),
    "x and h": al.SkipTimesteps(x_share=1.0, h=0.0),
    "layers": al.HoldLayers(x_share=0.0),
    "catch up": al.HoldLayers(x_share=(0.0, None), mode="queue_input"),
}
HOLDING: dict[str, tuple[al.Policy, dict[int, Rule]]] = {
    "gates": (al.SkipTimesteps(x_share=0.4, cap=3), {0: Rule(0.4, None, "hold_gates", 3)}),
    "gates, h": (al.SkipTimesteps(x_share=None, h=0.02), {0: Rule(None, 0.02, "hold_gates")}),
    "state": (al.SkipTimesteps(x_share=0.5, h=0.05, mode="hold_state"), {0: Rule(0.5, 0.05, "hold_state")}),
    "layers": (
        al.HoldLayers(x_share=(0.2, 0.1), cap=4),
        {1: Rule(0.2, None, "hold_state", 4), 2: Rule(0.1, None, "hold_state", 4)},
    ),
    "top layer": (al.HoldLayers(x_share=(None, 0.2), h=0.03), {2: Rule(0.2, 0.03, "hold_state")}),
}
EVERY_HOLDING = pytest.mark.parametrize("name", HOLDING)


def ran(lstm: al.AdaptiveLSTM) -> list[int]:
    assert lstm.last_run is not None
    return [c.ran for c in lstm.last_run.columns]


# -------------------------------------------------------------------------------------------------------- null settings


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("policy", NULL.values(), ids=NULL)
def test_a_limit_of_zero_never_holds(policy: al.Policy) -> None:
    options: dict[str, Any] = {
        "bidirectional": getattr(policy, "mode", "") != "queue_input",
        "proj_size": 4,
        "bias": False,
    }
    x = signal(30, 3, I)
    x[10:20] = x[10]
    lstm = adapted(I, H, 3, policy=policy, **options)
    assert_close(infer(lstm, x), infer(torch_lstm(I, H, 3, **options), x), "fp32")
    assert lstm.last_run is not None
    assert lstm.last_run.macs == lstm.last_run.macs_possible
    assert lstm.last_run.ran == 1.0
    exact = infer(lstm.double(), x.double())
    assert_equal(exact, infer(torch_lstm(I, H, 3, **options).double(), x.double()))


# ------------------------------------------------------------------------------------------------- against plain loops


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(HOLDING)),
    st.booleans(),
    st.sampled_from([0, 4]),
    st.lists(st.integers(1, 25), min_size=1, max_size=4),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_row_follows_a_plain_loop(
    name: str, bidirectional: bool, proj_size: int, lengths: list[int], given_state: bool, seed: int
) -> None:
    policy, rules = HOLDING[name]
    lstm = adapted(I, H, 3, policy=policy, bidirectional=bidirectional, proj_size=proj_size, seed=seed).double()
    shape, batch = lstm.stack_shape, len(lengths)
    x = signal(max(lengths), batch, I, seed=seed).double()
    h_0 = signal(shape.num_cells, batch, shape.output_size, seed=1).double() * given_state
    c_0 = signal(shape.num_cells, batch, H, seed=2).double() * given_state
    packed = pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, (h, c) = infer(lstm, packed, *([(h_0, c_0)] if given_state else []))
    padded = pad_packed_sequence(y)[0]
    want_ran, want_advanced, want_sent = [0] * shape.num_cells, [0] * shape.num_cells, [0] * shape.num_cells
    for row, length in enumerate(lengths):
        want = by_hand.run(lstm, x[:length, row], rules, hx=(h_0[:, row], c_0[:, row]))
        assert_close((padded[:length, row], (h[:, row], c[:, row])), (want.y, want.end), "fp64")
        for cell, actions in enumerate(want.did):
            assert actions[-1 if bidirectional and cell % 2 else 0] == "run"  # the first step in its direction
            want_ran[cell] += actions.count("run")
            want_advanced[cell] += actions.count("run") + actions.count("hold_gates")
            want_sent[cell] += sum(want.sent[cell])
    stats = lstm.last_run
    assert stats is not None
    assert ran(lstm) == want_ran
    assert [c.advanced for c in stats.columns] == want_advanced
    assert [c.x_sent + c.h_sent for c in stats.columns] == want_sent
    assert stats.macs == 4 * H * sum(want_sent) + proj_size * H * sum(want_advanced)
    assert stats.macs_possible == sum(lengths) * sum(shape.step_macs(cell) for cell in range(shape.num_cells))
    assert stats.ran == sum(want_ran) / (sum(lengths) * shape.num_cells)
    assert (stats.policy_macs, stats.exits, stats.layers) == (0, 0, shape.num_cells)


def test_copied_states_are_a_cell_that_sees_fewer_steps() -> None:
    lstm = adapted(I, H, policy=al.SkipTimesteps(x_share=0.4, mode="hold_state")).double()
    cell = nn.LSTMCell(I, H).double()
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in lstm.state_dict().items()})
    x = signal(60, 1, I).double()
    y, (h, c) = infer(lstm, x)
    state = (torch.zeros(1, H).double(), torch.zeros(1, H).double())
    used = skipped = 0
    for t in range(60):
        change = float((x[t] - x[used]).norm() / x[used].norm())  # rms over rms
        if 0 < t - used <= 8 and change < 0.4:
            skipped += 1
        else:
            used = t
            state = infer(cell, x[t], state)
        assert_close(y[t], state[0], "fp64")
    assert_close((h[0], c[0]), state, "fp64")
    assert 10 < skipped == 60 - ran(lstm)[0]


@EVERY_HOLDING
def test_layouts(name: str) -> None:
    lstm = adapted(I, H, 3, policy=HOLDING[name][0], batch_first=True).double()
    x = signal(40, 2, I).double()
    y, (h, c) = infer(lstm, x.transpose(0, 1))
    for row in range(2):
        alone, (h_1, c_1) = infer(lstm, x[:, row])
        assert_close((alone, h_1, c_1), (y[row], h[:, row], c[:, row]), "fp64")
    assert ran(lstm)[2] < 40


# ----------------------------------------------------------------------------------------------------------- how often


@pytest.mark.parametrize("cap", [1, 3, 50])
def test_the_cap_bounds_a_run_of_held_steps(cap: int) -> None:
    x = torch.rand(20, 2, I, generator=torch.Generator().manual_seed(0)) + 1
    lstm = adapted(I, H, 2, policy=al.SkipTimesteps(x_share=math.inf, cap=cap))
    infer(lstm, x)
    assert ran(lstm) == [2 * math.ceil(20 / (cap + 1))] * 2
    lstm.policy = al.HoldLayers(x_share=math.inf, cap=cap)
    infer(lstm, x)
    assert ran(lstm) == [40, 2 * math.ceil(20 / (cap + 1))]


def test_a_looser_limit_is_never_the_first_to_run_again() -> None:
    # What holds on any input: from the same last step that ran, the next one comes no earlier.
    limits = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)
    for seed in range(4):
        x = signal(40, 1, I, seed=seed, step=0.3)
        again = []
        for limit in limits:
            lstm = adapted(I, H, policy=al.SkipTimesteps(x_share=limit, mode="hold_state", cap=100))
            y = infer(lstm, x)[0]
            moves = (y[1:] != y[:-1]).any(2).nonzero()
            again.append(int(moves[0, 0]) + 1 if len(moves) else len(x))
        assert again == sorted(again)
        assert again[0] == 1
    # Whole runs can cost more under a looser limit, because they then compare with another step: the tighter limit runs
    # at 11.0, which lies close to all that follow, the looser one does not.
    values = torch.tensor([10.0, 11.0, 11.7, 10.15, 11.7, 10.15, 11.7, 10.15])[:, None, None]
    work = []
    for limit in (0.09, 0.11):
        lstm = adapted(1, H, policy=al.SkipTimesteps(x_share=limit))
        infer(lstm, values)
        work += ran(lstm)
    assert work == [2, 7]


def test_on_a_drifting_input_a_looser_limit_never_adds_work() -> None:
    x = torch.rand(200, 1, 1, generator=torch.Generator().manual_seed(0)).cumsum(0)  # one feature that only grows
    work = []
    for limit in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0):
        lstm = adapted(1, H, policy=al.SkipTimesteps(x_share=limit, cap=1000))
        infer(lstm, x)
        work.append(ran(lstm)[0])
    assert work == sorted(work, reverse=True)
    assert work[0] == 200
    assert work[-1] < 20


# ---------------------------------------------------------------------------------------------------------- queue_input


def exact_states(lstm: al.AdaptiveLSTM, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """h and c of all layers after every timestep of x [T, 1, I], from torch."""
    hx, hs, cs = None, [], []
    for x_t in x:
        _, hx = infer(nn.LSTM.forward, lstm, x_t[None], hx)
        hs.append(hx[0][:, 0])
        cs.append(hx[1][:, 0])
    return torch.stack(hs), torch.stack(cs)


@pytest.mark.parametrize(("decider", "h_limit"), [(1, None), (2, None), (1, 0.02)])
@pytest.mark.parametrize("in_stream", [False, True])
def test_catching_up_keeps_states_exact(decider: int, h_limit: float | None, in_stream: bool) -> None:
    limits = tuple(0.3 if layer == decider else None for layer in (1, 2))
    lstm = adapted(
        I, H, 3, policy=al.HoldLayers(x_share=limits, h=h_limit, mode="queue_input", cap=5), proj_size=4
    ).double()
    x, lengths = signal(45, 3, I, step=0.2).double(), [45, 45, 45] if in_stream else [31, 45, 12]
    if in_stream:
        with al.stream(lstm, batch_size=3) as s:
            y = torch.cat([s.run(part) for part in x.split([1, 6, 1, 1, 20, 16])])
            h, c, stats = s.state.h, s.state.c, s.stats
    else:
        packed, (h, c) = infer(lstm, pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False))
        y, stats = pad_packed_sequence(packed)[0], lstm.last_run  # type: ignore[assignment]
    worked, stale = [0, 0, 0], 0
    for row, length in enumerate(lengths):
        hs, cs = exact_states(lstm, x[:length, row : row + 1])
        before = torch.cat([torch.zeros_like(hs[:1]), hs])  # h that a layer starts a timestep with, exact
        used = 0
        for t in range(length):
            change = float((hs[t, decider - 1] - hs[used, decider - 1]).norm() / hs[used, decider - 1].norm())
            # While held, h stays what it was after the last step that ran.
            h_change = by_hand.rms(before[used + 1, decider] - before[used, decider])
            if not (0 < t - used <= 5 and change < 0.3 and (h_limit is None or h_change < h_limit)):
                used = t
            stale += t != used
            assert_close(y[t, row], hs[used, 2], "fp64")
        for layer in range(3):
            last = used if layer >= decider else length - 1
            assert_close((h[layer, row], c[layer, row]), (hs[last, layer], cs[last, layer]), "fp64")
            worked[layer] += last + 1  # inputs held at the end are never worked off
    assert [col.ran for col in stats.columns] == worked
    assert stale > 20


# ------------------------------------------------------------------------------------------------------------- streams


STREAMED: dict[str, al.Policy] = {
    **{name: policy for name, (policy, _) in HOLDING.items()},
    "catch up": al.HoldLayers(x_share=(0.5, None), mode="queue_input"),
}


@pytest.mark.parametrize("policy", STREAMED.values(), ids=STREAMED)
def test_streams_in_any_chunks(policy: al.Policy) -> None:
    lstm, x = adapted(I, H, 3, policy=policy, proj_size=4).double(), signal(40, 3, I, seed=3).double()
    whole, (h, c) = infer(lstm, x)
    for chunks in ([40], [1] * 40, [7, 0, 1, 20, 1, 11]):
        with al.stream(lstm, batch_size=3) as s:
            got = torch.cat([s.run(part) for part in x.split(chunks)])
            assert_close((got, s.state.h, s.state.c), (whole, h, c), "fp64")
            assert s.stats == lstm.last_run
            assert not s.exited.any()
    with al.stream(lstm, batch_size=3) as s, al.stream(lstm, batch_size=3) as other:
        for t in range(40):  # the state carries everything: two streams take turns
            s, other = other, s
            s.state = other.state
            assert_close(s.step(x[t]), whole[t], "fp64")
        s.reset()
        assert_equal(s.run(x), infer(lstm, x)[0])


def test_gradients_are_those_of_torch() -> None:
    lstm, x = adapted(I, H, 2, policy=al.SkipTimesteps(x_share=math.inf)), signal(12, 2, I) + 1
    with pytest.warns(UserWarning, match="nn.LSTM itself served"):
        y = lstm(x)[0]
    y.sum().backward()
    assert lstm.weight_hh_l0.grad is not None
    assert lstm.last_run is not None
    assert "gradients" in lstm.last_run.route.reason
    assert lstm.last_run.ran == 1.0
    assert_equal(y, torch_lstm(I, H, 2)(x)[0])
