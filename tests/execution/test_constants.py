"""Numbers that the native core and Python both rely on are the same."""

import pytest

from adaptive_lstm import Quantize, _native
from adaptive_lstm.calibration.latency_model import CHUNK
from adaptive_lstm.compression.pruning.settings import KERNEL_BLOCK, STRIP
from adaptive_lstm.errors import InputError
from adaptive_lstm.execution.reference_cell import MIN_DYNAMIC_RANGE
from adaptive_lstm.execution.torch_choice import ROUNDS
from adaptive_lstm.policies.change import MIN_CHANGE
from adaptive_lstm.policies.counts import LONGEST, MOST_KEPT
from adaptive_lstm.weights.precision import MAX_LEVELS, RAW_LEVELS

SHARED = _native.constants


def test_the_native_core_and_python_share_their_constants() -> None:
    assert SHARED.GATE_STRIP == STRIP
    assert (SHARED.ROW_BLOCK, 1) == KERNEL_BLOCK
    assert SHARED.CHUNK_ROWS == CHUNK
    assert (SHARED.LONGEST, SHARED.MOST_KEPT) == (LONGEST, MOST_KEPT)
    assert SHARED.RACE_ROUNDS == ROUNDS
    assert SHARED.MIN_CHANGE == MIN_CHANGE
    assert SHARED.MIN_DYNAMIC_RANGE == MIN_DYNAMIC_RANGE
    assert MAX_LEVELS == SHARED.MAX_LEVELS
    assert RAW_LEVELS["static"] == SHARED.MAX_LEVELS


def test_quantize_takes_as_many_levels_as_the_native_core() -> None:
    assert Quantize("int8", levels=SHARED.MAX_LEVELS).levels == SHARED.MAX_LEVELS
    with pytest.raises(InputError, match=f"expected a whole number from 0 to {SHARED.MAX_LEVELS}"):
        Quantize("int8", levels=SHARED.MAX_LEVELS + 1)
