"""Requests and replies of KServe v2: JSON, with tensors in it or, as Triton's binary extension has them, behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import strict_json
from ..codec import brief, is_whole
from ..errors import InputError
from ..runtime.arrays import floats
from ..types import StackShape

Frames = npt.NDArray[np.float32]

INPUT, OUTPUT, TYPE = "x", "y", "FP32"
VALUES_BESIDE = 256  # in the JSON of a request, beside those of its tensor
LONGEST_NAME = 128
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class Request:
    """What a client asks.

    ``frames``: [n, I], finite.
    ``id``: comes back in the reply; "": none.
    ``sequence``: its name; "": the frames are a whole sequence.
    ``start``, ``resume``, ``end``: of the sequence.
    ``binary``: outputs are wanted behind the JSON.
    """

    frames: Frames
    id: str
    sequence: str
    start: bool
    resume: bool
    end: bool
    binary: bool


def read(body: bytes, header_length: str | None, shape: StackShape, longest: int) -> Request:
    """A request.

    Args:
        body: of the request.
        header_length: bytes of JSON at its beginning, as the header says it; None: all.
        shape: of the LSTM.
        longest: frames that it may hold.

    Raises:
        InputError: it is none.
        NonFiniteError: NaN or infinity.
    """
    said, behind = _split(body, header_length)
    try:
        found = strict_json.loads(said.decode(), longest * shape.input_size + VALUES_BESIDE)
    except ValueError as error:
        raise InputError(f"the request is no JSON as expected: {error!s:.200}") from None
    request = _object(found, "the request")
    parameters = _object(request.get("parameters", {}), "parameters")
    sequence = sequence_name(parameters.get("sequence_id", ""))
    flags = {name: _flag(parameters, f"sequence_{name}") for name in ("start", "resume", "end")}
    if flags["start"] and flags["resume"]:
        raise InputError("got sequence_start and sequence_resume, expected at most one of them")
    request_id = request.get("id", "")
    if not isinstance(request_id, str) or len(request_id) > LONGEST_NAME:
        raise InputError(f"id: got {brief(request_id)}, expected at most {LONGEST_NAME} characters")
    frames = _frames(request.get("inputs"), behind, shape, longest)
    return Request(frames, request_id, sequence, binary=_binary(request.get("outputs"), parameters), **flags)


def sequence_name(value: object) -> str:
    """The name of a sequence, from a whole number or characters; 0 and "" are none. Raises ``InputError``."""
    name = str(value) if is_whole(value) and 0 <= value < 2**64 else value
    if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(
            f"sequence_id: got {brief(value)}, expected a whole number below 2**64, or up to {LONGEST_NAME} characters"
        )
    return "" if value == 0 else name


def as_frames(data: bytes, shape: StackShape, longest: int) -> Frames:
    """Frames [n, I] from their bytes, float32 in little-endian order.

    Raises:
        InputError: no whole number of frames, or more than ``longest``.
        NonFiniteError: NaN or infinity.
    """
    width = 4 * shape.input_size
    if not data or len(data) % width:
        raise InputError(
            f"got {len(data):,} bytes, expected frames of {width} bytes: {shape.input_size} float32 numbers in "
            "little-endian order for each"
        )
    _require_few(len(data) // width, longest)
    return _finite(np.frombuffer(data, "<f4").astype(np.float32, copy=False).reshape(-1, shape.input_size))


def reply(y: Frames, name: str, request: Request, frames: int) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a reply: outputs [n, P], and how many frames the sequence has seen."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": TYPE, "shape": list(y.shape)}
    parameters: dict[str, Any] = {"frames": frames}
    if request.sequence:
        parameters["sequence_id"] = request.sequence
    said: dict[str, Any] = {"model_name": name, "model_version": "1", "parameters": parameters, "outputs": [output]}
    if request.id:
        said["id"] = request.id
    if not request.binary:
        output["data"] = y.ravel().tolist()
        return _json(said), {"content-type": "application/json"}
    behind = y.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(behind)}
    head = _json(said)
    return head + behind, {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def metadata(name: str, shape: StackShape) -> dict[str, Any]:
    """What the model takes and gives."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": "adaptive_lstm",
        "inputs": [{"name": INPUT, "datatype": TYPE, "shape": [-1, shape.input_size]}],
        "outputs": [{"name": OUTPUT, "datatype": TYPE, "shape": [-1, shape.output_size]}],
    }


def _split(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    length = int(header_length) if re.fullmatch("[0-9]{1,12}", header_length, re.ASCII) else -1
    if not 0 < length <= len(body):
        raise InputError(f"{HEADER_LENGTH}: got {header_length:.20}, expected 1 to {len(body):,}, the body's length")
    return body[:length], body[length:]


def _frames(inputs: object, behind: bytes, shape: StackShape, longest: int) -> Frames:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise InputError(f"inputs: got {brief(inputs)}, expected one tensor, {INPUT}")
    tensor = _object(inputs[0], "inputs[0]")
    if tensor.get("name") != INPUT or tensor.get("datatype") != TYPE:
        got = f"{brief(tensor.get('name'))} of {brief(tensor.get('datatype'))}"
        raise InputError(f"inputs: got {got}, expected {INPUT} of {TYPE}")
    size = tensor.get("shape")
    if not isinstance(size, list) or len(size) != 2 or not all(map(is_whole, size)) or size[1] != shape.input_size:
        raise InputError(f"shape: got {brief(size)}, expected [n, {shape.input_size}]")
    if size[0] < 1:
        raise InputError(f"shape: got {brief(size)}, expected a frame at least")
    _require_few(size[0], longest)
    count = size[0] * size[1]
    parameters = _object(tensor.get("parameters", {}), "parameters of x")
    if "binary_data_size" in parameters:
        told = parameters["binary_data_size"]
        if "data" in tensor or not is_whole(told) or not told == len(behind) == 4 * count:
            raise InputError(
                f"binary_data_size: got {brief(told)} and {len(behind):,} bytes behind the JSON, expected "
                f"{4 * count:,} bytes there, and no data in it"
            )
        return as_frames(behind, shape, longest)
    if behind:
        raise InputError(f"got {len(behind):,} bytes behind the JSON, but no binary_data_size")
    values = floats(tensor.get("data"), "data")
    if values.size != count:
        raise InputError(f"data: got {values.size:,} values, expected {count:,}, as the shape says")
    return _finite(values.reshape(size))


def _finite(frames: Frames) -> Frames:
    if not np.isfinite(frames).all():
        raise InputError("got NaN or infinity, expected finite numbers")
    return frames


def _require_few(frames: int, longest: int) -> None:
    if frames > longest:
        raise InputError(f"got {frames:,} frames at once, expected at most {longest:,}; send them in parts")


def _binary(outputs: object, parameters: Mapping[str, Any]) -> bool:
    if outputs is None:
        return _flag(parameters, "binary_data_output")
    if not isinstance(outputs, list) or len(outputs) != 1 or _object(outputs[0], "outputs[0]").get("name") != OUTPUT:
        raise InputError(f"outputs: got {brief(outputs)}, expected one, {OUTPUT}")
    wanted = _object(outputs[0].get("parameters", {}), "parameters of y")
    return _flag(wanted if "binary_data" in wanted else parameters, "binary_data", "binary_data_output")


def _flag(parameters: Mapping[str, Any], *names: str) -> bool:
    for name in names:
        value = parameters.get(name)
        if value is not None:
            if not isinstance(value, bool):
                raise InputError(f"{name}: got {brief(value)}, expected true or false")
            return value
    return False


def _object(found: object, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InputError(f"{what}: got {brief(found)}, expected a JSON object")
    return found


def _json(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":"), allow_nan=False).encode()
