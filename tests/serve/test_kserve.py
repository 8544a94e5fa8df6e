"""The HTTP protocol of KServe v2 with Triton's vocabulary of sequences, asked by Triton's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")

from tritonclient.utils import InferenceServerException  # noqa: E402

from adaptive_lstm import deploy  # noqa: E402

from ..support.helpers import native_only  # noqa: E402
from .clients import Frames, alone, frames  # noqa: E402
from .servers import PATIENCE, Server  # noqa: E402

pytestmark = native_only


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(server.address, network_timeout=PATIENCE, connection_timeout=PATIENCE) as client:
        yield client


def infer(client: Any, x: Frames, *, binary: bool = True, model: str = "ears", **sequence: Any) -> Frames:
    given = triton.InferInput("x", x.shape, "FP32")
    given.set_data_from_numpy(x, binary_data=binary)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    found: Frames = client.infer(model, [given], outputs=outputs, **sequence).as_numpy("y")
    return found


def test_health_and_metadata(client: Any, server: Server) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("ears")
    assert client.is_model_ready("ears", "1")
    assert not client.is_model_ready("eyes")
    assert client.get_server_metadata()["name"] == "adaptive_lstm"
    assert client.get_model_metadata("ears") == {
        "name": "ears",
        "versions": ["1"],
        "platform": "adaptive_lstm",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 5]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 24]}],
    }
    with pytest.raises(InferenceServerException, match="got model eyes, version 1; expected ears"):
        client.get_model_metadata("eyes")


@pytest.mark.parametrize("binary", [True, False])
def test_sequences_side_by_side(client: Any, server: Server, lstm: deploy.LSTM, *, binary: bool) -> None:
    names: list[int | str] = [7, "7 of them", 2**63, "ü"]
    x = {name: frames(k, 12, 5) for k, name in enumerate(names)}
    found: dict[int | str, list[Frames]] = {name: [] for name in names}
    for k, part in enumerate((slice(0, 5), slice(5, 6), slice(6, 12))):
        for name in names:
            flags: dict[str, Any] = {"sequence_start": k == 0, "sequence_end": k == 2}
            found[name].append(infer(client, x[name][part], binary=binary, sequence_id=name, **flags))
    for name in names:
        np.testing.assert_array_equal(np.concatenate(found[name]), alone(lstm, x[name]))
    assert server.metric("streams") == 0
    with pytest.raises(InferenceServerException, match="7 is not open; set sequence_start"):
        infer(client, x[7], sequence_id=7)


def test_a_start_starts_anew(client: Any, server: Server, lstm: deploy.LSTM) -> None:
    x = frames(1, 6, 5)
    for _ in range(2):
        y = [infer(client, part, sequence_id=3, sequence_start=k == 0) for k, part in enumerate(np.split(x, 2))]
        np.testing.assert_array_equal(np.concatenate(y), alone(lstm, x))
    assert server.metric("streams") == 1
    assert server.ask("DELETE", f"{server.path}/sequences/3").status == 204
    assert server.metric("streams") == 0


def test_whole_sequences(client: Any, server: Server, lstm: deploy.LSTM) -> None:
    x = frames(2, 64, 5)
    for binary in (True, False):
        np.testing.assert_array_equal(infer(client, x, binary=binary), alone(lstm, x))
    given = triton.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)
    many = [client.async_infer("ears", [given], request_id=f"r{k}") for k in range(20)]  # outputs unasked: all, binary
    for k, one in enumerate(many):
        result = one.get_result(timeout=PATIENCE)
        np.testing.assert_array_equal(result.as_numpy("y"), alone(lstm, x))
        assert result.get_response()["id"] == f"r{k}"
        assert result.get_response()["parameters"] == {"frames": 64}
    assert server.metric("streams") == 0


def test_snapshots_move_a_sequence(client: Any, server: Server, lstm: deploy.LSTM) -> None:
    x, path = frames(3, 8, 5), f"{server.path}/sequences/"
    infer(client, x[:4], sequence_id="here", sequence_start=True)
    kept = server.ask("GET", path + "here")
    assert kept.headers["x-frames"] == "4"
    assert server.ask("PUT", path + "there", kept.body).json == {"sequence_id": "there", "frames": 4}
    for name in ("here", "there"):
        y = infer(client, x[4:], sequence_id=name, sequence_end=True)
        np.testing.assert_array_equal(y, alone(lstm, x)[4:])
    damaged = bytearray(kept.body)
    damaged[-1] ^= 1
    for body, told in ((b"", "damaged"), (bytes(damaged), "damaged"), (b"x" * 2**20, "damaged")):
        refused = server.ask("PUT", path + "there", body)
        assert refused.status == 400, refused
        assert told in refused.json["error"]
    assert server.ask("GET", path + "there").status == 404
    assert server.ask("DELETE", path + "there").status == 204
    assert server.metric("streams") == 0


GOOD = {"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [0, 0.5, 1, -1, 2]}
BAD: dict[str, tuple[int, Any, str]] = {
    "no JSON": (400, b"\x00\xff", "no JSON"),
    "half": (400, b'{"inputs": [', "no JSON"),
    "deep": (400, b"[" * 900, "no JSON"),
    "a name twice": (400, b'{"inputs": [], "inputs": []}', "twice"),
    "a list": (400, [], "expected a JSON object"),
    "no inputs": (400, {}, "inputs: got None"),
    "two inputs": (400, {"inputs": [GOOD, GOOD]}, "expected one tensor"),
    "another name": (400, {"inputs": [{**GOOD, "name": "z"}]}, "expected x of FP32"),
    "another type": (400, {"inputs": [{**GOOD, "datatype": "FP64"}]}, "expected x of FP32"),
    "another width": (400, {"inputs": [{**GOOD, "shape": [1, 4]}]}, "expected [n, 5]"),
    "no frame": (400, {"inputs": [{**GOOD, "shape": [0, 5], "data": []}]}, "a frame at least"),
    "less than no frame": (400, {"inputs": [{**GOOD, "shape": [-1, 5]}]}, "a frame at least"),
    "a shape of truths": (400, {"inputs": [{**GOOD, "shape": [True, 5]}]}, "shape: got"),
    "a huge shape": (400, {"inputs": [{**GOOD, "shape": [10**30, 5]}]}, "at most 64"),
    "less data": (400, {"inputs": [{**GOOD, "data": [1, 2]}]}, "got 2 values, expected 5"),
    "more data": (400, {"inputs": [{**GOOD, "data": [0] * 5000}]}, "values"),
    "ragged data": (400, {"inputs": [{**GOOD, "data": [[1, 2], [3]]}]}, "data: got"),
    "words": (400, {"inputs": [{**GOOD, "data": ["1"] * 5}]}, "array of real numbers"),
    "nothing": (400, {"inputs": [{**GOOD, "data": None}]}, "data: got"),
    "NaN": (400, {"inputs": [{**GOOD, "data": [0, 0, 0, 0, float("nan")]}]}, "NaN or infinity"),
    "too large": (400, {"inputs": [{**GOOD, "data": [0, 0, 0, 0, 1e300]}]}, "NaN or infinity"),
    "binary that is not there": (
        400,
        {"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "parameters": {"binary_data_size": 20}}]},
        "expected 20 bytes there",
    ),
    "shared memory": (
        400,
        {"inputs": [{**GOOD, "data": None, "parameters": {"shared_memory_region": "a"}}]},
        "data: got",
    ),
    "another output": (400, {"inputs": [GOOD], "outputs": [{"name": "h"}]}, "expected one, y"),
    "a flag that is none": (400, {"inputs": [GOOD], "parameters": {"sequence_start": 1}}, "true or false"),
    "a name that is none": (400, {"inputs": [GOOD], "parameters": {"sequence_id": [1]}}, "sequence_id: got"),
    "a long name": (400, {"inputs": [GOOD], "parameters": {"sequence_id": "x" * 129}}, "sequence_id: got"),
    "a negative name": (400, {"inputs": [GOOD], "parameters": {"sequence_id": -1}}, "sequence_id: got"),
    "start and resume": (
        400,
        {"inputs": [GOOD], "parameters": {"sequence_id": 1, "sequence_start": True, "sequence_resume": True}},
        "at most one",
    ),
    "nothing to resume": (
        404,
        {"inputs": [GOOD], "parameters": {"sequence_id": 1, "sequence_resume": True}},
        "no sequence 1 to resume",
    ),
    "too many bytes": (413, b" " * (2**20 + 1), "more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests(server: Server, case: str) -> None:
    status, said, told = BAD[case]
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    reply = server.ask("POST", f"{server.path}/infer", body)
    assert (reply.status, list(reply.json)) == (status, ["error"]), reply
    assert told in reply.json["error"]
    assert server.metric("streams") == 0


def test_bad_headers_and_paths(server: Server) -> None:
    path, body = f"{server.path}/infer", json.dumps({"inputs": [GOOD]}).encode()
    assert server.ask("POST", path, body).status == 200
    for length in ("0", "-1", "1.5", "x", str(len(body) + 1), "9" * 50, "²"):
        reply = server.ask(
            "POST", path, body, **{"Inference-Header-Content-Length": length.encode("latin-1").decode("latin-1")}
        )
        assert reply.status == 400, (length, reply)
    assert server.ask("POST", path, body, Content_Encoding="gzip").status == 415
    assert server.ask("POST", path, body, Content_Length="99999999999").status == 413
    for method, other, status in (
        ("GET", path, 405),
        ("POST", "/v2/models/eyes/infer", 404),
        ("POST", f"{server.path}/versions/2/infer", 404),
        ("GET", "/nothing", 404),
        ("GET", f"{server.path}/sequences/0", 404),
        ("GET", f"{server.path}/sequences/9", 404),
    ):
        reply = server.ask(method, other)
        assert (reply.status, list(reply.json)) == (status, ["error"])


def test_silent_sequences_are_closed(strict: Server) -> None:
    said = {"inputs": [GOOD], "parameters": {"sequence_id": "quiet", "sequence_start": True}}
    assert strict.ask("POST", f"{strict.path}/infer", json.dumps(said).encode()).status == 200
    end = time.monotonic() + PATIENCE
    while strict.metric("streams") and time.monotonic() < end:
        time.sleep(0.2)
    assert strict.metric("streams") == 0
    assert strict.metric('ended_total{reason="idle"}') >= 1
