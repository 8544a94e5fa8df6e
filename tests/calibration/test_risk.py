"""The tests of a loss limit: known values, laws, errors, and the guarantee itself on data whose truth is known."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adaptive_lstm.calibration.risk import (
    Method,
    conditional_p_values,
    fixed_sequence,
    joint_p_value,
    needed,
    needed_like,
    p_value,
    upper_bound,
)
from adaptive_lstm.errors import AdaptiveLSTMError, CalibrationError
from adaptive_lstm.types import DoubleArray

BOUNDED: tuple[Method, ...] = ("hoeffding-bentkus", "wsr")
limits = st.floats(0.001, 0.999)
unit_losses = st.lists(st.floats(0, 1), min_size=1, max_size=60)


def failures(k: int, n: int) -> DoubleArray:
    """0/1 losses with k ones, which come first."""
    return (np.arange(n) < k).astype(np.float64)


# Known values


@pytest.mark.parametrize(
    ("k", "n", "limit", "expected"), [(0, 299, 0.01, 0.99**299), (1, 2, 0.5, 0.75), (3, 3, 0.2, 1)]
)
def test_binomial_by_hand(k: int, n: int, limit: float, expected: float) -> None:
    assert p_value(failures(k, n), limit, binary=True) == pytest.approx(expected, rel=1e-12)


def test_binomial_counts_failures_as_integers() -> None:
    # 22 * (15 / 22) is less than 15 in floating point, 100 * (7 / 100) more than 7: no count comes from a mean.
    assert int(22 * (15 / 22)) == 14
    assert math.ceil(100 * (7 / 100)) == 8
    for n in range(1, 51):
        for k in range(n + 1):
            expected = stats.binom.cdf(k, n, 0.3)
            assert p_value(failures(k, n), 0.3, binary=True) == pytest.approx(expected, rel=1e-10)


def test_hoeffding_bentkus_by_hand() -> None:
    def hb(losses: npt.ArrayLike, limit: float) -> float:
        return p_value(losses, limit, binary=False, method="hoeffding-bentkus")

    assert hb([0] * 10, 0.1) == pytest.approx(0.9**10)
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert hb([0.25, 0.25], 0.5) == pytest.approx(math.exp(-2 * divergence))
    assert hb([0.5, 0.5], 0.5) == 1  # a mean on the limit is no evidence
    assert hb([0.9, 0.9], 0.5) == 1
    # Here the Bentkus term is the smaller one, and the mean times n would round up to 8.
    assert hb(failures(7, 100), 0.2) == pytest.approx(math.e * stats.binom.cdf(7, 100, 0.2))
    assert np.full(120, 0.1).sum() > 12
    assert hb(np.full(120, 0.1), 0.2) == pytest.approx(math.e * stats.binom.cdf(12, 120, 0.2))


def wsr_oracle(losses: list[float], limit: float) -> float:
    """The betting p-value written down one loss at a time: the bet is placed before the loss is looked at."""
    wealth = best = 1.0
    total, squares = 0.5, 0.25
    for i, loss in enumerate(losses):
        bet = min(1.0, math.sqrt(2 * math.log(20) / (len(losses) * squares / (i + 1))))
        wealth *= 1 - bet * (loss - limit)
        best = max(best, wealth)
        total += loss
        squares += (loss - total / (i + 2)) ** 2
    return 1 / best


def test_wsr_by_hand() -> None:
    assert p_value([0], 0.5, binary=False, method="wsr") == pytest.approx(1 / 1.5)
    assert p_value([0, 0], 0.5, binary=False, method="wsr") == pytest.approx(1 / 1.5**2)
    assert p_value([1, 0], 0.5, binary=False, method="wsr") == 1  # 0.5 * 1.5 never exceeds the stake


@given(losses=unit_losses, limit=limits)
def test_wsr_equals_its_oracle(losses: list[float], limit: float) -> None:
    assert p_value(losses, limit, binary=False, method="wsr") == pytest.approx(wsr_oracle(losses, limit), rel=1e-9)


@pytest.mark.parametrize("limit", [0.05, 0.1, 0.2])
def test_wsr_equals_its_oracle_where_bets_stay_below_their_cap(limit: float) -> None:
    losses = (np.random.default_rng(0).random(500) ** 9).tolist()
    assert p_value(losses, limit, binary=False, method="wsr") == pytest.approx(wsr_oracle(losses, limit), rel=1e-9)


@given(tail=st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=100, max_size=100))
def test_wsr_bets_do_not_know_what_comes(tail: list[float]) -> None:
    # The wealth peaks before the tail, all of whose losses are above the limit.
    start = [0.01] * 400
    reference = p_value([*start, *[1.0] * 100], 0.05, binary=False, method="wsr")
    assert p_value([*start, *tail], 0.05, binary=False, method="wsr") == reference < 0.05


def test_the_kind_of_loss_is_never_read_off_the_sample() -> None:
    sample = failures(2, 200)
    assert p_value(sample, 0.05, binary=False) == p_value(sample, 0.05, binary=False, method="wsr")
    assert p_value(sample, 0.05, binary=True) == p_value(sample, 0.05, binary=True, method="binomial")
    assert p_value(sample, 0.05, binary=False) != p_value(sample, 0.05, binary=True)


# Laws


@given(losses=unit_losses, limit=limits, step=st.floats(0, 0.5))
def test_a_looser_limit_is_never_harder_to_certify(losses: list[float], limit: float, step: float) -> None:
    looser = min(limit + step, 0.999)
    for method in BOUNDED:
        strict = p_value(losses, limit, binary=False, method=method)
        assert p_value(losses, looser, binary=False, method=method) <= strict * (1 + 1e-9)
    zero_one = np.round(losses)
    assert p_value(zero_one, looser, binary=True) <= p_value(zero_one, limit, binary=True) * (1 + 1e-9)


@given(losses=unit_losses, limit=limits, more=st.floats(0, 1))
def test_more_loss_is_never_better(losses: list[float], limit: float, more: float) -> None:
    worse = [min(1.0, loss + more) for loss in losses]
    strict = p_value(losses, limit, binary=False, method="hoeffding-bentkus")
    assert p_value(worse, limit, binary=False, method="hoeffding-bentkus") >= strict * (1 - 1e-9)


@given(losses=unit_losses, limit=limits)
def test_p_values_lie_between_zero_and_one(losses: list[float], limit: float) -> None:
    for method in BOUNDED:
        assert 0 <= p_value(losses, limit, binary=False, method=method) <= 1
    assert 0 <= p_value(np.round(losses).astype(bool), limit, binary=True) <= 1


# Sequences of tests, several risks, groups


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [([], 0), ([0.2, 0.0], 0), ([0.01, 0.05, 0.051, 0.0], 2), ([0.0, 0.0], 2), ([1 - 0.95], 1)],
)
def test_fixed_sequence_stops_at_the_first_failure(p_values: list[float], expected: int) -> None:
    assert fixed_sequence(p_values, 0.95) == expected


def test_fixed_sequence_computes_nothing_after_the_first_failure() -> None:
    def lazily() -> Iterator[float]:
        yield from (0.01, 0.3)
        raise AssertionError("asked for a p-value after the first failure")

    assert fixed_sequence(lazily(), 0.95) == 1


def test_several_risks_take_the_worst_p_value() -> None:
    assert joint_p_value([0.01, 0.2, 0.03]) == 0.2
    assert joint_p_value(iter([0.01])) == 0.01


def test_conditional_p_values_test_each_group_of_early_leavers() -> None:
    losses = np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
    exit_times = np.array([2, 2, 3, 3, 3, 5, 5, 5])
    found = conditional_p_values(losses, exit_times, 0.4, first=1, last=5, binary=True)
    expected = [1.0, *(stats.binom.cdf(k, n, 0.4) for k, n in ((1, 2), (2, 5), (2, 5), (2, 8)))]
    assert found == pytest.approx(expected)
    assert found[-1] == p_value(losses, 0.4, binary=True)  # the last group is everybody


def test_a_good_average_does_not_hide_bad_early_leavers() -> None:
    exit_times = np.repeat([0, 1], [50, 950])
    losses = np.concatenate([failures(10, 50), failures(0, 950)])
    assert p_value(losses, 0.02, binary=True) < 0.05
    early, everybody = conditional_p_values(losses, exit_times, 0.02, first=0, last=1, binary=True)
    assert early > 0.99
    assert everybody < 0.05


# How many sequences, and bounds


@pytest.mark.parametrize(
    ("confidence", "observed", "expected"),
    [(0.95, 0, (598, 299, 149, 59)), (0.9, 0, (460, 230, 114, 45)), (0.95, 0.5, (2100, 1049, 523, 208))],
)
def test_needed_known_sizes(confidence: float, observed: float, expected: tuple[int, ...]) -> None:
    sizes = [needed(m, confidence, observed * m, binary=True) for m in (0.005, 0.01, 0.02, 0.05)]
    assert sizes == list(expected)


@settings(max_examples=40)
@given(limit=st.floats(0.02, 0.9), share=st.floats(0, 0.8), confidence=st.sampled_from([0.6, 0.9, 0.95, 0.99]))
def test_needed_is_the_last_size_that_fails_plus_one(limit: float, share: float, confidence: float) -> None:
    observed = limit * share
    sizes = np.arange(1, 20_001)
    failing = sizes[stats.binom.cdf(np.floor(sizes * observed + 1e-9), sizes, limit) > 1 - confidence]
    assert needed(limit, confidence, observed, binary=True) == (failing[-1] + 1 if failing.size else 1)


@pytest.mark.parametrize("observed", [0, 0.003, 0.03])
def test_needed_for_bounded_losses(observed: float) -> None:
    n = needed(0.05, 0.95, observed, binary=False)
    assert p_value([observed] * n, 0.05, binary=False) <= 0.05
    assert p_value([observed] * (n - 1), 0.05, binary=False) > 0.05
    assert n >= needed(0.05, 0.95, binary=True)


@pytest.mark.parametrize("binary", [True, False])
def test_as_many_losses_as_are_needed_would_pass(binary: bool) -> None:
    losses = np.zeros(60)
    losses[29::30] = 1 if binary else 0.6
    assert p_value(losses, 0.05, binary=binary) > 0.05
    n = needed_like(losses, 0.05, 0.95, binary=binary)
    assert n is not None
    assert p_value(np.resize(losses, n), 0.05, binary=binary) <= 0.05
    assert 60 < n < 1000
    worse = np.where(losses > 0, losses, 0.05 if not binary else np.arange(60) % 20 == 1)
    assert needed_like(worse, 0.05, 0.95, binary=binary) is None  # as many again would not help
    assert needed_like(np.full(60, 0.05 - 1e-9), 0.05, 0.95, binary=False) is None


@pytest.mark.parametrize(("k", "n"), [(0, 100), (3, 250), (40, 50), (50, 50)])
def test_upper_bound_is_that_of_clopper_and_pearson(k: int, n: int) -> None:
    expected = stats.binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact").high
    assert upper_bound(failures(k, n), 0.95, binary=True) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("method", BOUNDED)
def test_upper_bound_is_where_the_p_value_reaches_the_level(method: Method) -> None:
    losses = np.random.default_rng(0).beta(1, 20, 300)
    bound = upper_bound(losses, 0.95, binary=False, method=method)
    assert losses.mean() < bound < 0.1
    assert p_value(losses, bound, binary=False, method=method) <= 0.05
    assert p_value(losses, bound - 1e-6, binary=False, method=method) > 0.05
    assert upper_bound(np.ones(30), 0.95, binary=False, method=method) == 1


# The guarantee, where the truth is known: risk exactly on the limit, so that every certificate is a false one

Draw = Callable[[np.random.Generator, float, int], DoubleArray]
LOSSES: dict[str, tuple[Draw, bool]] = {
    "binary": (lambda rng, mean, n: (rng.random(n) < mean).astype(np.float64), True),
    "beta, heavy": (lambda rng, mean, n: rng.random(n) ** ((1 - mean) / mean), False),
    "beta, light": (lambda rng, mean, n: rng.beta(4, 4 * (1 - mean) / mean, n), False),
    "two values": (lambda rng, mean, n: np.where(rng.random(n) < mean / 0.4, 0.4, 0.0), False),
    "only 0 and 1": (lambda rng, mean, n: (rng.random(n) < mean).astype(np.float64), False),
}


def allowed(repeats: int, level: float = 0.05) -> float:
    """Largest share of false certificates that chance explains, but for one run in a thousand."""
    return float(stats.binom.ppf(0.999, repeats, level)) / repeats


@pytest.mark.parametrize("risks", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("method", ["auto", "hoeffding-bentkus"])
def test_false_certificates_are_as_rare_as_promised(method: Method, kind: str, risks: int) -> None:
    draw, binary = LOSSES[kind]
    rng = np.random.default_rng(0)
    repeats, limit = 500, 0.1

    def certified() -> bool:
        # With two risks, one is far below its limit and helps nothing.
        samples = [draw(rng, limit * share, 120) for share in (1, 0.2)[:risks]]
        joint = joint_p_value(p_value(sample, limit, binary=binary, method=method) for sample in samples)
        return fixed_sequence([joint], 0.95) == 1

    assert sum(certified() for _ in range(repeats)) / repeats <= allowed(repeats)


def test_stopping_at_the_first_failure_is_what_keeps_the_level() -> None:
    rng = np.random.default_rng(0)
    repeats, candidates = 500, 20
    counts = rng.binomial(200, 0.05, (repeats, candidates))
    p_values = [[p_value(failures(k, 200), 0.05, binary=True) for k in row] for row in counts]
    assert sum(fixed_sequence(row, 0.95) > 0 for row in p_values) / repeats <= allowed(repeats)
    assert sum(min(row) <= 0.05 for row in p_values) / repeats > 0.4  # what going on would have certified


def test_conditional_guarantee() -> None:
    rng = np.random.default_rng(0)
    repeats = 500

    def certified() -> bool:
        # A tenth leaves early, exactly on the limit; the others lose nothing.
        exit_times = (rng.random(1000) >= 0.1).astype(int)
        losses = (exit_times == 0) & (rng.random(1000) < 0.1)
        return joint_p_value(conditional_p_values(losses, exit_times, 0.1, first=0, last=1, binary=True)) <= 0.05

    assert 0 < sum(certified() for _ in range(repeats)) / repeats <= allowed(repeats)


def test_which_test_of_bounded_losses_is_stronger_depends_on_their_spread() -> None:
    rng = np.random.default_rng(0)

    def power(kind: str, mean: float, method: Method) -> float:
        samples = [LOSSES[kind][0](rng, mean, 240) for _ in range(200)]
        return sum(p_value(sample, 0.05, binary=False, method=method) <= 0.05 for sample in samples) / 200

    assert power("beta, light", 0.025, "wsr") > power("beta, light", 0.025, "hoeffding-bentkus") + 0.5
    assert power("only 0 and 1", 0.0125, "wsr") < power("only 0 and 1", 0.0125, "hoeffding-bentkus")


@pytest.mark.parametrize("kind", LOSSES)
def test_upper_bound_covers(kind: str) -> None:
    draw, binary = LOSSES[kind]
    rng = np.random.default_rng(0)
    missed = sum(upper_bound(draw(rng, 0.1, 150), 0.9, binary=binary) < 0.1 for _ in range(200))
    assert missed / 200 <= allowed(200, 0.1)


# Errors

ZEROS = np.zeros(20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: p_value([], 0.1, binary=True), r"shape \(0,\)"),
        (lambda: p_value([[0, 1]], 0.1, binary=True), r"shape \(1, 2\)"),
        (lambda: p_value("losses", 0.1, binary=True), "no array of numbers"),
        (lambda: p_value([0, math.nan], 0.1, binary=False), "got nan at index 1"),
        (lambda: p_value([0, 0.5, -0.01, 2], 0.1, binary=False), r"-0.01 at index 2 \(2 bad of 4\).*signed"),
        (lambda: p_value([1 + 1e-9], 0.1, binary=False), "at index 0"),
        (lambda: p_value([0, 1, 0.5], 0.1, binary=True), "0.5 at index 2.*binary=False"),
        (lambda: p_value([math.nan], 0.1, binary=True), "got nan"),
        (lambda: p_value(ZEROS, 0.1, binary=False, method="binomial"), "binary losses only"),
        (lambda: p_value(ZEROS, 0.1, binary=False, method="clt"), "'clt'"),  # type: ignore[arg-type]
        (lambda: upper_bound(ZEROS, 0.95, binary=False, method="binomial"), "binary losses only"),
        (lambda: joint_p_value([]), "no p-value"),
        (lambda: joint_p_value([0.1, math.nan]), "p-value of nan"),
        (lambda: fixed_sequence([1.5], 0.95), "p-value of 1.5"),
        (lambda: conditional_p_values(ZEROS, np.zeros(20), 0.1, first=0, last=1, binary=True), "float64"),
        (lambda: conditional_p_values(ZEROS, np.zeros(9, int), 0.1, first=0, last=1, binary=True), r"\(9,\)"),
        (lambda: conditional_p_values(ZEROS, np.zeros(20, int), 0.1, first=1, last=1, binary=True), "buckets 0 to 0"),
        (lambda: needed(0.1, 0.95, 0.1, binary=True), "below the limit"),
        (lambda: needed(0.1, 0.95, -0.1, binary=False), "below the limit"),
        (lambda: needed(0.01, 0.95, 0.01 - 1e-9, binary=True), "too close"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        call()


@pytest.mark.parametrize("limit", [0, 1, -0.1, math.nan])
def test_impossible_limits_are_refused(limit: float) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: p_value(ZEROS, limit, binary=True),
        lambda: conditional_p_values(ZEROS, np.zeros(20, int), limit, first=0, last=0, binary=True),
        lambda: needed(limit, 0.95, binary=True),
    ]
    for call in calls:
        with pytest.raises(CalibrationError, match="limit: got"):
            call()


@pytest.mark.parametrize("confidence", [0.05, 0.5, 1, 95, math.nan])
def test_impossible_confidences_are_refused(confidence: float) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: fixed_sequence(itertools.repeat(0.0, 3), confidence),
        lambda: upper_bound(ZEROS, confidence, binary=True),
        lambda: needed(0.1, confidence, binary=True),
    ]
    for call in calls:
        with pytest.raises(CalibrationError, match="confidence: got"):
            call()


def test_the_error_is_one_of_the_package() -> None:
    assert issubclass(CalibrationError, AdaptiveLSTMError)
    assert issubclass(CalibrationError, ValueError)
