"""Features of this processor on which the settings of a peer depend."""

from __future__ import annotations

from pathlib import Path

DOT_PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}  # as Linux names them


def multiplies_bytes_exactly(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether sums of 8-bit products are exact, as far as Linux reports; True where that is unknown.

    Without integer dot products x86 adds pairs of products in 16 bits, which saturate: int8 weights then need a reduced
    range of 7 bits (ONNX Runtime's ``reduce_range``, nncf's overflow fix).
    """
    if not cpuinfo.exists():
        return True
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return not flags or bool(flags & DOT_PRODUCTS)
