"""``python .ci/runtime_wheel.py WHEEL FOLDER``: the wheel ``adaptive-lstm-runtime`` from one of ``adaptive-lstm``.

It holds the same package, so that ``adaptive_lstm.deploy`` runs, but asks for numpy and safetensors, and not for torch;
of its extras it keeps ``serve``.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path

NEEDS = ("numpy", "safetensors")
EXTRA = re.compile(r"Provides-Extra: serve$|Requires-Dist: .*extra == ['\"]serve['\"]")  # needs no torch either
LEFT_OUT = ("entry_points.txt",)  # the terminal command needs torch


def runtime_wheel(wheel: Path, folder: Path) -> Path:
    """Write the slim wheel of a wheel into a folder, and return its path."""
    name, version, *tags = wheel.stem.split("-")
    slim = f"{name}_runtime"
    old, new = f"{name}-{version}.dist-info", f"{slim}-{version}.dist-info"
    contents = dict[str, bytes]()
    with zipfile.ZipFile(wheel) as source:
        modes = {info.filename.replace(old, new): info.external_attr for info in source.infolist()}
        for path in source.namelist():
            if path not in {f"{old}/{one}" for one in ("RECORD", *LEFT_OUT)}:
                contents[path.replace(old, new)] = source.read(path)
    contents[f"{new}/METADATA"] = metadata(contents[f"{new}/METADATA"].decode()).encode()
    contents[f"{new}/RECORD"] = record(contents, f"{new}/RECORD")
    out = folder / "-".join((slim, version, *tags))
    out = out.with_name(out.name + ".whl")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for path, data in contents.items():
            info = zipfile.ZipInfo(path)
            info.external_attr = modes.get(path, 0o644 << 16)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, data)
    return out


def metadata(text: str) -> str:
    """METADATA under the other name, with what the runtime needs in place of what the package needs."""
    head, _, body = text.partition("\n\n")
    left_out = ("Requires-Dist:", "Provides-Extra:")
    kept = [line for line in head.splitlines() if EXTRA.match(line) or not line.startswith(left_out)]
    kept = ["Name: adaptive-lstm-runtime" if line.startswith("Name:") else line for line in kept]
    return "\n".join([*kept, *(f"Requires-Dist: {one}" for one in NEEDS)]) + "\n\n" + body


def record(contents: dict[str, bytes], name: str) -> bytes:
    """RECORD: path, hash and size of every file."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for path, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((path, f"sha256={digest}", len(data)))
    rows.writerow((name, "", ""))
    return out.getvalue().encode()


if __name__ == "__main__":
    print(runtime_wheel(Path(sys.argv[1]), Path(sys.argv[2])))
