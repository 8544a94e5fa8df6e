"""Ten thousand damaged files: refused with the package's own errors, or loaded as what was saved; never a crash."""

from __future__ import annotations

import copy
import json
import math
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import StackShape

from ..support.artifact_cases import certificate_of, read_file, settings, tagger, write_file
from ..support.helpers import always_native, infer, signal
from ..support.policy_cases import SHAPES, depth_translators, time_translators

MUTATIONS = 10_000
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, -0.5, 2**31, 2**40, -(2**63), 10**400, 1e300, math.nan, math.inf),
    *("", "inf", "array", "Dense", "Delta", "Combined", "int8", "fp32", "x" * 9999, "h", "\0", "0.policy"),
    *([], {}, [[]], [0], [1, 2], {"kind": "Dense"}, {"kind": "Combined", "policies": []}, [None] * 99),
)
INPUT = signal(6, 2, 5)


def all_settings(model: nn.Module) -> Any:
    return [settings(m) for m in model.modules() if isinstance(m, al.AdaptiveLSTM)]


# ---------------------------------------------------------------------------------------------------- bytes of the file


def flip(data: bytearray, choice: random.Random) -> None:
    begin = 9000 if choice.random() < 0.5 else 0  # half of them among the weights
    for _ in range(choice.choice((1, 1, 1, 2, 8))):
        data[choice.randrange(min(begin, len(data) - 1), len(data))] ^= 1 << choice.randrange(8)


def cut(data: bytearray, choice: random.Random) -> None:
    del data[choice.randrange(len(data)) :]


def leave_out(data: bytearray, choice: random.Random) -> None:
    begin = choice.randrange(len(data))
    del data[begin : begin + choice.choice((1, 4, 64, 1000))]


def swap(data: bytearray, choice: random.Random) -> None:
    n = choice.choice((1, 4, 16, 300))
    a, b = (choice.randrange(len(data) - n) for _ in range(2))
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def repeat(data: bytearray, choice: random.Random) -> None:
    begin, n = choice.randrange(len(data)), choice.choice((1, 8, 500))
    data[begin:begin] = data[begin : begin + n]


def length(data: bytearray, choice: random.Random) -> None:
    data[:8] = struct.pack("<Q", choice.choice((0, 1, 2**31, 2**63, 2**64 - 1, choice.randrange(20_000))))


def edit(data: bytearray, choice: random.Random) -> None:
    """The header of safetensors, with a length that fits: a character, a number, a dtype, or a key."""
    (n,) = struct.unpack("<Q", data[:8])
    header = data[8 : 8 + n].decode()
    at = choice.randrange(len(header))
    old, new = choice.choice(
        (
            (header[at], chr(choice.randrange(32, 127))),
            (header[at], ""),
            ("F32", choice.choice(("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X"))),
            ('"shape":[', choice.choice(('"shape":[1,', '"shape":[0,', '"shape":[99999999999,', '"shape":[-1,'))),
            ('"data_offsets":[', choice.choice(('"data_offsets":[1', '"data_offsets":[9999999999'))),
            (choice.choice(("0.policy", "1.policy", "lstms", "sha256", '\\"')), choice.choice(("0.replaced", "", "x"))),
            (str(choice.randrange(10)), str(choice.randrange(10))),
        )
    )
    begin = max(header.find(old, at), header.find(old))
    if begin >= 0:
        header = header[:begin] + new + header[begin + len(old) :]
    encoded = header.encode()
    encoded += b" " * (-len(encoded) % 8)
    data[: 8 + n] = struct.pack("<Q", len(encoded)) + encoded


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, flip, flip, cut, leave_out, swap, repeat, length, edit, edit, edit, edit),
)


# -------------------------------------------------------------------------------------------------- what the file says


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in it with every key."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def restate(header: dict[str, Any], choice: random.Random) -> None:
    known = places(header)
    if not known:  # all of it was deleted before
        return
    (owner, key), (other, name) = choice.choice(known), choice.choice(known)
    way = choice.randrange(6)
    if way == 0:
        del owner[key]
    elif way == 1:
        owner[key] = copy.deepcopy(other[name])
    elif way == 2 and isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
        owner[key] = choice.choice((-1, 1)) * owner[key] + choice.choice((-1, 0, 1, 0.5, 1000))
    elif way == 3 and isinstance(owner, dict):
        owner[choice.choice(("", "kind", "x", "h", "extra", key + "x"))] = owner.pop(key)
    else:
        owner[key] = copy.deepcopy(choice.choice(JUNK))


def reshape(arrays: dict[str, np.ndarray], choice: random.Random) -> None:
    name, other = choice.choice(list(arrays)), choice.choice(list(arrays))
    array = np.atleast_1d(arrays[name])
    changed = array.copy()
    if array.size:
        value = choice.choice((0, 1, 255) if array.dtype == "uint8" else (0, -1, 1e38, math.inf, math.nan))
        changed.reshape(-1)[choice.randrange(array.size)] = value
    with np.errstate(invalid="ignore"):
        other_type = array.astype(choice.choice(("float64", "float16", "uint8", "int32", "bool")))
    choices: tuple[np.ndarray, ...] = (
        *(changed, changed, array.reshape(-1), array[:-1], array[:0], array.T, np.zeros_like(array), arrays[other]),
        *(other_type, np.concatenate([array, array]), array[None], np.array(1.0, np.float32)),
    )
    picked = choice.randrange(len(choices) + 3)
    if picked < len(choices):
        arrays[name] = choices[picked]
    elif picked == len(choices):
        arrays[name], arrays[other] = arrays[other], arrays[name]
    elif picked == len(choices) + 1:
        del arrays[name]
    else:
        array = arrays.pop(name)
        arrays[choice.choice(("extra", name + ".kept", name.removesuffix(".kept")))] = array


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.fixture
def saved(tmp_path: Path) -> tuple[nn.Module, nn.Module, Path]:
    """A model, the same with everything set, and its file."""
    model, fast = tagger()
    head = al.LinearHead(np.eye(2, 18, dtype=np.float32), np.zeros(2, np.float32))
    held = (0.1, None, tuple(np.linspace(0, 1, 9)), 0.0, 0.1, 0.1)
    leave = al.ExitInDepth(translators=depth_translators(SHAPES["both ways"]), head=head, threshold=0.9)
    settled = al.ExitInTime(None, threshold=0.1, translators=time_translators(StackShape(18, 7, 1)))
    below, above = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
    below.policy = al.Combined(al.Delta(h=held), al.HoldLayers(x_share=0.1), leave)
    below.quantize = al.Quantize("int8", raw="int8", raw_scale=(1.0,) * 5, matrices={"weight_hh_l1": "bf16"})
    above.policy = al.Combined(al.SkipTimesteps(x_share=0.1), settled)
    above.plan = replace(above.plan, expected_rates={"activity": Range(0.5, 0.1, 40)})  # the new policy has none
    al.save(fast, tmp_path / "model", certificate=certificate_of(fast))
    return model, fast, tmp_path / "model"


@pytest.mark.slow
def test_damaged_bytes(saved: tuple[nn.Module, nn.Module, Path]) -> None:
    model, fast, path = saved
    whole, expected, choice = path.read_bytes(), all_settings(fast), random.Random(0)
    loaded = 0
    for i in range(MUTATIONS // 2):
        data = bytearray(whole)
        DAMAGES[i % len(DAMAGES)](data, choice)
        path.write_bytes(data)
        try:
            other = al.load(path, model)
        except al.errors.ModelFileError:
            continue
        assert all_settings(other) == expected, f"mutation {i}"
        loaded += 1
    assert loaded < MUTATIONS // 20  # a space in the JSON, a character that was swapped with itself


@pytest.mark.slow
def test_changed_contents_with_a_checksum_that_fits(saved: tuple[nn.Module, nn.Module, Path]) -> None:
    model, _, path = saved
    header, arrays = read_file(path)
    original, choice, loaded = json.dumps(header), random.Random(1), 0
    for _ in range(MUTATIONS // 2):
        header, given = json.loads(original), dict(arrays)
        for _ in range(choice.choice((1, 1, 1, 2, 5))):
            restate(header, choice) if choice.random() < 0.7 else reshape(given, choice)
        write_file(path, header, given)
        try:
            if choice.random() < 0.1:
                al.load_certificate(path)
            other = al.load(path, model)
        except al.errors.ModelFileError:
            continue
        loaded += 1
        all_settings(other)
        with always_native(), suppress(al.errors.AdaptiveLSTMError):
            infer(other, INPUT)  # what has been loaded can be run
    assert 100 < loaded < MUTATIONS // 2 * 0.7
