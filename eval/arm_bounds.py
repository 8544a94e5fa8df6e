"""How fast could the NEON kernels be? Bounds on paper, because no ARM device was at hand.

``python -m eval.arm_bounds``: compiles the kernels, finds the inner loops in the machine code, and asks ``llvm-mca``
how many cycles an iteration takes on each processor if all data lie in the first-level cache. The bound is the share of
the products that the same model gives a loop of independent products and nothing else. LLVM describes the Cortex-A76 by
the model of the A57; the Neoverse N1, which is the same core, has a model of its own.

Needs aarch64-linux-gnu-g++ and llvm-mca (Debian: g++-aarch64-linux-gnu, llvm-19).
"""

import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.shared import common

NATIVE = Path(__file__).resolve().parents[1] / "adaptive_lstm/native"
FLAGS = ["-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
ITERATIONS = 200
PEAK = 24  # independent products of the loop that has nothing else: latency times products per cycle, and more
PRODUCTS = {
    "sdot": "sdot v{}.4s, v30.16b, v31.4b[0]",
    "smmla": "smmla v{}.4s, v30.16b, v31.16b",
    "fmla": "fmla v{}.4s, v30.4s, v31.4s",
}
SETS = {"neondot": "-march=armv8.2-a+dotprod", "i8mm": "-march=armv8.2-a+dotprod+i8mm"}
WITH_DOT = {"Cortex-A55": "cortex-a55", "Cortex-A76": "cortex-a76", "Neoverse N1": "neoverse-n1"}
WITH_PAIRS = {"Neoverse N2": "neoverse-n2"}


@dataclass(frozen=True)
class Loop:
    """An innermost loop: the function's symbol, instructions, and how many of each there are."""

    function: str
    lines: tuple[str, ...]
    counts: Counter[str]


@dataclass(frozen=True)
class Kernel:
    """Which loops are meant: instruction set, product, how many in an iteration, and part of the symbol."""

    isa: str
    product: str
    times: int
    symbol: str
    also: Callable[[Counter[str]], bool] = lambda counts: not counts["zip1"]

    def is_in(self, loop: Loop) -> bool:
        """Whether this is one of the loops."""
        return loop.counts[self.product] == self.times and self.symbol in loop.function and self.also(loop.counts)


def _reads_ahead(counts: Counter[str]) -> bool:
    return bool(counts["prfm"]) and not counts["zip1"]


KERNELS = {
    "int8, 7 bits, 6 rows": Kernel("neondot", "sdot", 24, "ByE0"),
    "int8, 7 bits, 1 row": Kernel("neondot", "sdot", 8, "ByE0", _reads_ahead),
    "int8, 7 bits, listed columns": Kernel("neondot", "sdot", 16, "int8_listILNS0_2ByE0", lambda c: bool(c["zip1"])),
    "int8, 11 bits, 3 rows": Kernel("neondot", "sdot", 24, "ByE1"),
    "int8, 11 bits, 1 row": Kernel("neondot", "sdot", 16, "ByE1", _reads_ahead),
    "float32, 6 rows": Kernel("neondot", "fmla", 24, "dense_rowsIf"),
    "float32, 1 row": Kernel("neondot", "fmla", 16, "dense_oneIf"),
    "bfloat16, 6 rows": Kernel("neondot", "fmla", 24, "dense_rowsIt"),
    "bfloat16, 1 row": Kernel("neondot", "fmla", 16, "dense_oneIt"),
    "int8, pairs of rows": Kernel("i8mm", "smmla", 24, "pair_rows"),
}


def compiled(isa: str, folder: Path) -> str:
    """The machine code of all kernels of an instruction set, as text."""
    out = folder / f"{isa}.o"
    names = [f"-DALSTM_ISA={isa}", f'-DALSTM_SIMD="simd/{isa}.h"', f"-I{NATIVE}"]
    source = str(NATIVE / "kernels/kernels.cpp")
    subprocess.run(["aarch64-linux-gnu-g++", *FLAGS, SETS[isa], *names, "-c", source, "-o", str(out)], check=True)
    dump = ["aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(out)]
    return subprocess.run(dump, check=True, capture_output=True, text=True).stdout


def loops(code: str) -> Iterator[Loop]:
    """The innermost loops: backward branches inside a function, without another one between their ends."""
    for part in re.split(r"\n\n", code):
        head = re.search(r"^[0-9a-f]+ <(.*)>:$", part, re.MULTILINE)
        if head is None:
            continue
        found = re.findall(r"^ *([0-9a-f]+):\t(\S+)[ \t]*(.*?)(?:[ \t]*//.*)?$", part, re.MULTILINE)
        at = {int(address, 16): i for i, (address, _, _) in enumerate(found)}
        jumps = list[tuple[int, int]]()
        for i, (_, name, operands) in enumerate(found):
            to = re.search(r"([0-9a-f]+) <", operands)
            if to and re.match(r"b\.|[ct]bn?z", name) and at.get(int(to[1], 16), len(found)) <= i:
                jumps.append((at[int(to[1], 16)], i))
        for first, last in jumps:
            if any(first <= a and b <= last for a, b in jumps if (a, b) != (first, last)):
                continue
            body = found[first : last + 1]
            lines = (f"{name} {re.sub(r'[0-9a-f]+ <.*', '.Lfirst', operands)}" for _, name, operands in body)
            yield Loop(head[1], tuple(lines), Counter(name for _, name, _ in body))


def cycles(lines: Sequence[str], processor: str) -> float:
    """Of one iteration, in the long run."""
    command = ["llvm-mca-19", "-mtriple=aarch64", f"-mcpu={processor}", "-mattr=+dotprod,+i8mm"]
    text = "\n".join([".Lfirst:", *lines, ""])
    run = subprocess.run(
        [*command, f"-iterations={ITERATIONS}"], input=text, check=True, capture_output=True, text=True
    )
    total = re.search(r"Total Cycles:\s+(\d+)", run.stdout)
    assert total is not None, run.stdout
    return int(total[1]) / ITERATIONS


def share(kernel: Kernel, loop: Loop, processor: str) -> float:
    """Of the most products per cycle that the processor can do."""
    alone = cycles([PRODUCTS[kernel.product].format(i) for i in range(PEAK)], processor) / PEAK
    return kernel.times * alone / cycles(loop.lines, processor)


def bounds() -> list[dict[str, Any]]:
    """A record for each kernel: of its loops, which differ in details, the slowest on each processor."""
    with tempfile.TemporaryDirectory() as folder:
        codes = {isa: list(loops(compiled(isa, Path(folder)))) for isa in SETS}
    records = list[dict[str, Any]]()
    for name, kernel in KERNELS.items():
        meant = [loop for loop in codes[kernel.isa] if kernel.is_in(loop)]
        assert meant, f"no loop found: {name}"
        processors = WITH_PAIRS if kernel.product == "smmla" else WITH_DOT
        shares = {title: min(share(kernel, loop, p) for loop in meant) for title, p in processors.items()}
        smallest = min(meant, key=lambda loop: len(loop.lines))
        counted = {"products": kernel.times, "instructions": len(smallest.lines)}
        records.append({"group": kernel.isa, "case": name, "product": kernel.product, "shares": shares, **counted})
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    given = common.parser(__doc__).parse_args(arguments)
    records = bounds()
    common.save(given, "arm_bounds", records)
    if given.json:
        print("\n".join(json.dumps(r) for r in records))
        return
    titles = [*WITH_DOT, *WITH_PAIRS]
    rows = [
        [r["case"], r["product"], *(f"{r['shares'][t]:.0%}" if t in r["shares"] else "" for t in titles)]
        for r in records
    ]
    print(common.table("Share of the products that a processor can do", ["loop", "product", *titles], rows))


if __name__ == "__main__":
    main()
