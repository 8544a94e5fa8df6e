"""The reader of .traineddata files, on files written here."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from eval.zoo.traineddata import NETWORK, RECODER, UNICHARSET, characters, network


def text(what: str) -> bytes:
    return struct.pack("<I", len(what)) + what.encode()


def layer(kind: str, name: str, inputs: int, outputs: int, body: bytes, flags: int = 0) -> bytes:
    return b"\0" + text(kind) + b"\0\1" + struct.pack("<4i", flags, inputs, outputs, 0) + text(name) + body


def matrix(integers: np.ndarray, scales: np.ndarray, mode: int = 129) -> bytes:
    sizes = struct.pack("<BIIb", mode, *integers.shape, 0)
    return sizes + integers.astype("i1").tobytes() + struct.pack("<I", len(scales)) + scales.astype("<f8").tobytes()


def file(entries: dict[int, bytes]) -> bytes:
    starts, at, body = [-1] * 24, 4 + 8 * 24, b""
    for number, content in sorted(entries.items()):
        starts[number] = at + len(body)
        body += content
    return struct.pack("<i24q", 24, *starts) + body


def lstm(inputs: int, outputs: int, *, mode: int = 129, na: int | None = None) -> tuple[bytes, list[np.ndarray]]:
    rng = np.random.default_rng(inputs)
    gates = [rng.integers(-127, 128, (outputs, inputs + outputs + 1)) for _ in range(4)]
    scales = np.arange(1, outputs + 1) / 100
    body = struct.pack("<i", inputs + outputs if na is None else na) + b"".join(matrix(g, scales, mode) for g in gates)
    return layer("LSTM", "Lfx", inputs, outputs, body), [g * scales[:, None] for g in gates]


def test_network() -> None:
    inner, gates = lstm(3, 2)
    reverse = layer("RTLReversed", "Rev", 3, 2, struct.pack("<I", 1) + inner)
    start = layer("Input", "Input", 36, 1, struct.pack("<5i", 1, 36, 0, 1, 0))
    rates = struct.pack("<I3f", 3, 0.1, 0.2, 0.3)
    series = layer("Series", "Series", 36, 2, struct.pack("<I", 2) + start + reverse + rates, flags=64)
    root, description = network(file({NETWORK: series + text("[1,36,0,1Lrx2]"), 23: b"version"}))
    assert description == "[1,36,0,1Lrx2]"
    assert [one.kind for one in root.layers] == ["Input", "RTLReversed"]
    assert root.find("Input").settings == (1, 36, 0, 1, 0)
    found = root.find("Lfx")
    assert (found.inputs, found.outputs) == (3, 2)
    for got, want in zip(found.matrices, gates, strict=True):
        np.testing.assert_allclose(got.weights, want, rtol=1e-6)
    with pytest.raises(KeyError):
        root.find("Lfx96")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (file({}), "without number 17"),
        (file({NETWORK: layer("Mystery", "m", 1, 1, b"")}), "kind 'Mystery', expected one of Series"),
        (file({NETWORK: b"\5"}), "kind number 5"),
        (file({NETWORK: lstm(3, 2, mode=128)[0]}), "mode 128, expected int8"),
        (file({NETWORK: lstm(3, 2, na=7)[0]}), "7 inputs of a gate, expected 3 \\+ 2"),
    ],
    ids=["none", "kind", "number", "floats", "two dimensions"],
)
def test_what_is_no_such_network(content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        network(content)


def test_characters() -> None:
    """The first is the space, the next two stand for none, and share the output that means so."""
    listed = "5\nNULL 0\nJoined 7\n|Broken|0|1 f\ne 3\n~ 8\n"
    codes = [(0,), (3,), (3,), (1,), (2,)]
    packed = [struct.pack(f"<bi{len(c)}i", 1, len(c), *c) for c in codes]
    recoder = struct.pack("<I", len(codes)) + b"".join(packed)
    assert characters(file({UNICHARSET: listed.encode(), RECODER: recoder})) == {0: " ", 1: "e", 2: "~"}
    two = struct.pack("<I", 1) + struct.pack("<bi2i", 1, 2, 5, 6)
    with pytest.raises(ValueError, match="2 outputs"):
        characters(file({UNICHARSET: b"1\nNULL 0\n", RECODER: two}))
