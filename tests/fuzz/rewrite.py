"""Changes that keep to a format: what a safetensors file, an archive or JSON says is another, and checksums fit."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import warnings
import zipfile
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from adaptive_lstm import tensorfile

from .damage import DAMAGES, Damage
from .restate import dumps, reshape, restate, say_twice

# -------------------------------------------------------------------------------------------------------- safetensors

_DTYPES = ("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "X", "")
_NUMBERS: tuple[Any, ...] = (-1, 0, 1, 7, 2**31, 2**40, 2**63, 2**64 - 1, 2**64, 10**30, 0.5, True, None, "1", [])


def _parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _whole(said: str, rest: bytes) -> bytes:
    encoded = said.encode(errors="surrogatepass")
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + rest


def in_order(data: bytes) -> bytes:
    """The same with names in order: safetensors writes those of metadata in another order in every process."""
    said, rest = _parts(data)
    return _whole(json.dumps(said, sort_keys=True), rest)


def _signed(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """With the checksum that fits, if there was one."""
    if "sha256" not in header:
        return header
    del header["sha256"]
    return header | {"sha256": tensorfile.checksum(header, arrays)}


def lie(data: bytes, choice: random.Random) -> bytes:
    """About the dtype, the shape or the place of an array; or anywhere in the header of safetensors."""
    said, rest = _parts(data)
    tensors = [name for name in said if name != "__metadata__"]
    if not tensors or choice.random() < 0.2:
        restate(said, choice)
        return _whole(dumps(said), rest)
    one, other = said[choice.choice(tensors)], said[choice.choice(tensors)]
    way = choice.choice(("dtype", "shape", "shape", "data_offsets", "data_offsets", "other"))
    if way == "dtype":
        one["dtype"] = choice.choice(_DTYPES)
    elif way == "other":
        one["data_offsets"], one["shape"] = other["data_offsets"], other["shape"]  # they overlap
    else:
        row = list(one[way])
        row[choice.randrange(len(row)) : choice.choice((len(row), None))] = [choice.choice(_NUMBERS)]
        one[way] = row
    return _whole(dumps(said), rest)


def say(data: bytes, choice: random.Random) -> bytes:
    """Something else in our own header, or in what says which file it is."""
    said, rest = _parts(data)
    metadata = said["__metadata__"]
    if choice.random() < 0.1:
        restate(metadata, choice)
        return _whole(dumps(said), rest)
    header = json.loads(metadata["header"])
    for _ in range(choice.choice((1, 1, 1, 2, 5))):
        restate(header, choice)
    metadata["header"] = dumps(_signed(header, load(data)) if isinstance(header, dict) else header)
    return _whole(dumps(said), rest)


def twice(data: bytes, choice: random.Random) -> bytes:
    """A name twice, in our own header or in that of safetensors."""
    said, rest = _parts(data)
    if choice.random() < 0.5 and "header" in said.get("__metadata__", {}):
        said["__metadata__"]["header"] = say_twice(said["__metadata__"]["header"], choice)
        return _whole(dumps(said), rest)
    return _whole(say_twice(dumps(said), choice), rest)


def arrays(data: bytes, choice: random.Random) -> bytes:
    """Other arrays."""
    said, _ = _parts(data)
    found, metadata = dict(sorted(load(data).items())), said.get("__metadata__")
    for _ in range(choice.choice((1, 1, 2))):
        reshape(found, choice)
    if metadata is not None and "header" in metadata:
        metadata["header"] = dumps(_signed(json.loads(metadata["header"]), found))
    return in_order(save({name: np.asarray(array, order="C") for name, array in found.items()}, metadata))


# ------------------------------------------------------------------------------------------------------------ archives

_HEADER = re.compile(rb"\{'descr': (?P<descr>[^,]+), 'fortran_order': (?P<order>\w+), 'shape': (?P<shape>\([^)]*\))")
_HEADERS = {
    "descr": (
        b"'<f8'",
        b"'>f4'",
        b"'<f2'",
        b"'|O'",
        b"'<c8'",
        b"'<U9'",
        b"'|V4'",
        b"[('a', '<f4')]",
        b"'<M8[s]'",
        b"3",
    ),
    "order": (b"True", b"1", b"None"),
    "shape": (b"()", b"(0,)", b"(-1, 3)", b"(1000000000000,)", b"(2, 3, 4)", b"(4611686018427387904, 8)", b"(1.5,)"),
}


def _entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {one.filename: file.read(one) for one in file.infolist()}


def _archive(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    into = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(into, "w", method) as file:
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, content in entries:
            file.writestr(zipfile.ZipInfo(name), content, method)  # not the time of day
    return into.getvalue()


def member(data: bytes, choice: random.Random) -> bytes:
    """The bytes of one file in an archive, whose checksum fits."""
    entries = _entries(data)
    name = choice.choice([*entries, *(name for name in entries if name.endswith(".pkl"))])
    entries[name] = choice.choice(list(DAMAGES.values()))(entries[name], choice)
    return _archive(list(entries.items()))


def relist(data: bytes, choice: random.Random) -> bytes:
    """Which files an archive lists, and how they are packed."""
    entries = list(_entries(data).items())
    one, other = choice.randrange(len(entries)), choice.randrange(len(entries))
    name, content = entries[one]
    way = choice.randrange(5)
    if way == 0:
        del entries[one]
    elif way == 1:
        entries[one] = (choice.choice((entries[other][0], "", "x", "x.npy", "../x", "split.npy")), content)
    elif way == 2:
        entries.append((name, entries[other][1]))
    elif way == 3:
        entries[one] = (name, entries[other][1])
    else:
        entries.append((choice.choice(("zeros.npy", "y.npy", name)), bytes(choice.choice((0, 9, 10**6)))))
    return _archive(entries, choice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))


def promise(data: bytes, choice: random.Random) -> bytes:
    """What the header of an array in an .npz file promises."""
    entries = _entries(data)
    name = choice.choice(list(entries))
    content = entries[name]
    found, which = _HEADER.search(content), choice.choice(("descr", "shape", "shape", "order"))
    if found is not None:
        end = 10 + int.from_bytes(content[8:10], "little")
        begin, stop = found.span(which)
        text = (content[10:begin] + choice.choice(_HEADERS[which]) + content[stop : end - 1]).rstrip().ljust(end - 11)
        entries[name] = content[:8] + len(text + b"\n").to_bytes(2, "little") + text + b"\n" + content[end:]
    return _archive(list(entries.items()))


# ---------------------------------------------------------------------------------------------------------------- JSON


def retell(data: bytes, choice: random.Random) -> bytes:
    """Another value, or a name twice, in a file that is JSON."""
    if choice.random() < 0.3:
        return say_twice(data.decode(), choice).encode(errors="surrogatepass")
    found = json.loads(data)
    restate(found, choice)
    return dumps(found).encode(errors="surrogatepass")


SAFETENSORS: dict[str, Damage] = {one.__name__: one for one in (lie, say, twice, arrays)}
ARCHIVE: dict[str, Damage] = {one.__name__: one for one in (member, relist)}
NUMPY: dict[str, Damage] = {**ARCHIVE, "promise": promise}
JSON: dict[str, Damage] = {"retell": retell}
