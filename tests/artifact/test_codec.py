"""The codec of frozen dataclasses: values come back as they were, nothing else is read, equal values share a digest."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

import adaptive_lstm as al
from adaptive_lstm import codec


@dataclass(frozen=True)
class Inner:
    limits: tuple[float | None, ...] = ()
    mode: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    count: int
    share: float | None = None
    flag: bool = False
    rows: tuple[float, ...] = ()
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    named: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class WithArray:
    values: npt.NDArray[np.float32]


FULL = Outer(
    count=-3,
    share=math.inf,
    flag=True,
    rows=(0.1, math.inf, *np.linspace(0, 1, 40)),
    inner=Inner((0.5, None), "b"),
    many=(Inner(), Inner((1.0,))),
    named={"x": 1e-300},
)


def there_and_back(value: object) -> Any:
    arrays: codec.Written = {}
    found = json.loads(json.dumps(codec.encode(value, "at", arrays), allow_nan=False))
    given = codec.Arrays(arrays)
    back = codec.decode(type(value), found, "at", given)
    given.finish()
    return back


@pytest.mark.parametrize("value", [Outer(1), FULL, Outer(2**31 - 1, share=0.1, rows=(0.1,))])
def test_there_and_back(value: Outer) -> None:
    back = there_and_back(value)
    assert back == value
    assert codec.digest(back) == codec.digest(value)


def test_arrays_are_kept_as_they_are() -> None:
    values = np.array([[0.1, -0.0], [np.inf, 3e-39]], np.float32)
    back = there_and_back(WithArray(values)).values
    assert (back.dtype, back.shape, back.tobytes()) == (values.dtype, values.shape, values.tobytes())
    others: list[Any] = [values, values.T, values.reshape(4), values.astype(np.float64)]
    digests = {codec.digest(WithArray(other)) for other in others}
    assert len(digests) == 4


def test_arrays_of_another_byte_order_have_the_same_values_and_digest() -> None:
    values = np.array([[0.1, -0.0], [np.inf, 3e-39]], np.float32)
    back = there_and_back(WithArray(values.astype(">f4"))).values
    assert (back.dtype, back.tobytes()) == (values.dtype, values.tobytes())
    assert codec.digest(WithArray(values.astype(">f4"))) == codec.digest(WithArray(values))
    for value in (np.array([None, 1]), np.array([("a", None)], [("name", "U1"), ("of", object)])):
        for held in (codec.digest, lambda value: codec.encode(value, "at", {})):
            with pytest.raises(al.errors.InputError, match="an array of Python objects"):
                held(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": None}, "at.count: got None, expected a whole number"),
        ({"count": 1.0}, "at.count: got 1.0, expected a whole number"),
        ({"count": True}, "at.count: got True, expected a whole number"),
        ({"count": 2**31}, "expected a whole number of 32 bits"),
        ({"share": math.nan}, "at.share: got nan, expected a finite number"),
        ({"share": math.inf}, "at.share: got inf, expected a finite number"),
        ({"share": 10**400}, "at.share"),
        ({"share": True}, "at.share: got True"),
        ({"flag": 1}, "at.flag: got 1, expected true or false"),
        ({"rows": [0.1, "x"]}, r"at.rows.1: got 'x', expected a finite number"),
        ({"rows": "array"}, "at.rows: missing, expected float64"),
        ({"rows": [0.0] * 5000}, "at.rows: got 5,000 entries, expected at most 4,096"),
        ({"inner": []}, "at.inner: got .*, expected names with values or null"),
        ({"inner": {"limits": []}}, "at.inner: got .*, expected limits, mode"),
        ({"inner": {"limits": [], "mode": "c"}}, "at.inner.mode: got 'c', expected 'a' or 'b'"),
        ({"inner": {"limits": [], "mode": "a", "extra": 0}}, "expected limits, mode"),
        ({"many": [None]}, "at.many.0: got None"),
        ({"named": {"x": "y"}}, "at.named.x: got 'y'"),
        ({"extra": 1}, "at: got .*, expected count, flag"),
    ],
)
def test_everything_else_is_refused(changes: dict[str, Any], message: str) -> None:
    found = codec.encode(Outer(1), "at", {}) | changes
    with pytest.raises(al.errors.ModelFileError, match=message):
        codec.decode(Outer, found, "at", codec.Arrays({}))


def test_what_is_at_its_default_may_be_left_out() -> None:
    for value in (Outer(1), Outer(2, share=0.5, named={"x": 1.0}), FULL):
        arrays: codec.Written = {}
        found = codec.encode_changed(value, "at", arrays)
        assert "flag" in found or not value.flag
        assert codec.decode(Outer, codec.with_defaults(Outer, found, "at"), "at", codec.Arrays(arrays)) == value
    assert codec.encode_changed(Outer(1), "at", {}) == {"count": 1}
    wrong: list[Any] = [[], {"count": 1, "extra": 0}, {"flag": True}]
    for given in wrong:
        with pytest.raises(al.errors.ModelFileError, match="at: got"):
            codec.decode(Outer, codec.with_defaults(Outer, given, "at"), "at", codec.Arrays({}))


def test_a_missing_key_and_a_wrong_array() -> None:
    found = codec.encode(Outer(1), "at", {})
    del found["flag"]
    with pytest.raises(al.errors.ModelFileError, match=r"at: got .*, expected count, flag"):
        codec.decode(Outer, found, "at", codec.Arrays({}))
    rows = codec.encode(Outer(1), "at", {}) | {"rows": "array"}
    for array in (np.zeros(3, np.float32), np.zeros((3, 1)), np.array([np.nan]), np.zeros(2**18 + 1)):
        with pytest.raises(al.errors.ModelFileError, match=r"at\.rows: got"):
            codec.decode(Outer, rows, "at", codec.Arrays({"at.rows": array}))


def test_a_million_entries_are_refused_at_once() -> None:
    million: list[Any] = [{"limits": [0.5], "mode": "a"}] * 10**6
    begun = time.perf_counter()
    for changes in ({"many": million}, {"rows": million}, {"named": dict.fromkeys(map(str, range(10**6)), 1.0)}):
        with pytest.raises(al.errors.ModelFileError, match="1,000,000 entries"):
            codec.decode(Outer, codec.encode(Outer(1), "at", {}) | changes, "at", codec.Arrays({}))
    assert time.perf_counter() - begun < 5


def test_what_is_no_data() -> None:
    for value in (len, object(), {1, 2}, Outer, (1, [len])):
        with pytest.raises(al.errors.InputError, match="is Python code"):
            codec.encode(value, "at", {})
        with pytest.raises(al.errors.InputError, match="is Python code"):
            codec.digest(value)
    for number in (math.nan, -math.inf):
        with pytest.raises(al.errors.InputError, match="expected a finite number or infinity"):
            codec.encode(number, "at", {})


def test_equal_values_have_one_digest_and_others_another() -> None:
    assert codec.digest(Outer(1, share=1.0)) == codec.digest(Outer(1, share=1))
    assert codec.digest({"b": 1, "a": 2}) == codec.digest({"a": 2, "b": 1})
    assert codec.digest(al.Delta.uniform(0.1)) == codec.digest(al.Delta(h=0.1, x=0.1))
    different: list[Any] = [
        *(Outer(1), Outer(2), Outer(1, flag=True), Outer(1, inner=Inner()), Outer(1, inner=Inner((None,))), FULL),
        *(al.Delta(), al.Dense(), al.Delta(h=0.1), al.Delta(x=0.1), al.Delta(h=(0.1, 0.2)), al.Delta(h=(0.2, 0.1))),
        *(al.SkipTimesteps(), al.HoldLayers(), al.Combined(al.Delta(), al.SkipTimesteps())),
        *(al.Quantize(), al.Quantize("int8"), al.Quantize(matrices={"weight_hh_l0": "int8"}), [], {}, "", 0, None),
    ]
    assert len({codec.digest(value) for value in different}) == len(different)


def test_a_new_field_with_a_default_keeps_old_digests() -> None:
    old = make_dataclass("Settings", [("a", int), ("b", float, 0.5)], frozen=True)
    new = make_dataclass(
        "Settings", [("a", int), ("b", float, 0.5), ("c", Any, (1.0,)), ("d", Any, field(default_factory=dict))]
    )
    assert codec.digest(old(1)) == codec.digest(new(1))
    assert codec.digest(old(1, 0.1)) == codec.digest(new(1, 0.1))
    assert codec.digest(old(1)) != codec.digest(new(1, 0.5, (2.0,)))
    assert codec.digest(old(1)) != codec.digest(new(1, 0.5, (1.0,), {"x": 1}))


def test_policies_and_codec_need_no_torch() -> None:
    """Both can be imported, and a policy be written, where there is no torch."""
    program = """
import pathlib, sys, types
sys.modules["torch"] = None
package = types.ModuleType("adaptive_lstm")
package.__path__ = [sys.argv[1]]
sys.modules["adaptive_lstm"] = package
from adaptive_lstm import codec, policies
head = policies.LinearHead([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
policy = policies.ExitInTime(head, threshold=0.5)
arrays = {}
found = codec.encode(policy, "policy", arrays)
back = codec.decode(policies.ExitInTime, found, "policy", codec.Arrays(arrays))
assert codec.digest(back) == codec.digest(policy)
"""
    folder = al.__path__[0]
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
