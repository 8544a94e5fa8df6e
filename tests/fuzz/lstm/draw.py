"""A random case, and what is simpler than it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from ..target import Case, simpler_fields

WEIGHTS = ("torch", "large", "huge", "tiny", "zeros", "mixed", "grid", "constant units")
PRUNED = ("no", "columns", "unstructured", "block", "unit", "all units")
QUANTIZE = (
    "fp32", "int8", "bf16", "int8, 127 levels", "int8, 64 levels", "int8, weights only", "int8, static raw",
    "int8, dynamic raw", "int8, bf16 raw", "raw only", "mixed",
)  # fmt: skip
HOLDS = ("skip gates", "skip state", "hold layers", "skip and hold", "queue")
DELTAS = ("uniform", "per column", "raw too", "repeats only", "priced", "zero")
TIME_EXITS = ("head", "settled", "python head", "never")
DEPTH_EXITS = ("step", "sequence", "step, agreement", "sequence, agreement", "never")
SPLITS = ("never repeated", "always repeated", "from states")
LAYOUTS = ("padded", "unbatched", "packed", "packed, unsorted")
GIVEN = ("none", "inside", "beyond", "far beyond", "zeros")
SIGNALS = ("drift", "noise", "jumps", "repeats", "silence", "large", "extreme", "tiny", "denormal")
MEMORY = (
    "contiguous", "transposed", "strided", "expanded", "sliced", "negative bit", "imaginary part", "zero tensor",
    "inference", "parameter",
)  # fmt: skip
DTYPES = ("float32", "float64", "bfloat16", "float16")
MODES = ("no_grad", "inference_mode", "gradients", "autocast")
ODD = ("no", "fake", "make_fx", "vmap", "jvp", "functional_call", "sparse", "subclass", "jit trace",
       "quantized")  # fmt: skip
WRONG = (
    "no", "nan", "infinity", "nan state", "features", "dimensions", "state shape", "state dtype", "state type",
    "one state", "input dtype", "input type", "packed sizes", "packed indices", "empty", "policy", "quantize",
    "stream state",
)  # fmt: skip


def case(choice: random.Random) -> Case:
    """A random case. Mostly small: faults of size show at 1, at odd sizes and across a block of the kernels."""
    layers = choice.choice((1, 1, 2, 2, 3, 4))
    hidden = choice.choice((1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 65, 70, *(choice.randint(1, 40) for _ in range(8))))
    bidirectional = choice.random() < 0.25
    drawn: Case = {
        "seed": choice.randrange(2**31),
        "inputs": choice.choice((1, 2, 3, 5, 8, 16, 31, 33, 65, *(choice.randint(1, 40) for _ in range(5)))),
        "hidden": hidden,
        "layers": layers,
        "bidirectional": bidirectional,
        "proj": choice.randint(1, hidden - 1) if hidden > 1 and choice.random() < 0.2 else 0,
        "bias": choice.random() < 0.85,
        "batch_first": choice.random() < 0.5,
        "dropout": 0.5 if layers > 1 and choice.random() < 0.2 else 0.0,
        "weights": often(choice, "torch", WEIGHTS, 0.4),
        "pruned": often(choice, "no", PRUNED, 0.7),
        "quantize": often(choice, "fp32", QUANTIZE, 0.35),
        "batch": choice.choice((1, 1, 2, 3, 5, 17)),
        "steps": choice.choice((1, 2, 3, 5, 8, choice.randint(1, 12))),
        "chunks": choice.choice(("steps", "mixed")),
        "layout": often(choice, "padded", LAYOUTS, 0.5),
        "given": often(choice, "none", GIVEN, 0.5),
        "signal": often(choice, "drift", SIGNALS, 0.3),
        "memory": often(choice, "contiguous", MEMORY, 0.5),
        "dtype": often(choice, "float32", DTYPES, 0.85),
        "default_dtype": often(choice, "float32", DTYPES, 0.9),
        "mode": often(choice, "no_grad", MODES, 0.8),
        "odd": often(choice, "no", ODD, 0.96),
        "wrong": often(choice, "no", WRONG, 0.8),
        "stream": choice.choice((0, 0, 1, 2, 4, choice.randint(1, 8))),
        **policies(choice, layers, bidirectional),
        "rows": choice.choice((0, 0, 1, 2, 4, choice.randint(1, 8))),
    }
    # Decisions and large weights multiply a rounding at every step, until nothing can be said of the last ones. Long
    # runs of those are followed in streams, from the native run's own states.
    floats = drawn["delta"] != "no" and drawn["quantize"] in ("fp32", "bf16", "int8, weights only", "raw only", "mixed")
    if floats or drawn["weights"] in ("large", "huge", "mixed"):
        drawn |= {"steps": min(drawn["steps"], choice.randint(1, 4)), "chunks": "steps"}
        drawn["given"] = "beyond" if drawn["given"] == "far beyond" else drawn["given"]
    # Integer sums can be exactly zero where the reference's float sum of 1e36 leaves 1e29: a gate half open against one
    # that is open, of which the layers above make anything.
    if drawn["signal"] == "extreme" and drawn["quantize"] in ("int8, dynamic raw", "raw only"):
        drawn["signal"] = "large" if layers > 1 else "extreme"
    alone = drawn["bidirectional"] or drawn["depth"].startswith("sequence")  # cannot be followed step by step
    if alone and drawn["delta"] != "no" and layers > 2:  # every layer multiplies them too
        drawn["weights"] = "torch" if drawn["weights"] in ("large", "huge", "mixed") else drawn["weights"]
    if (drawn["quantize"] != "fp32" and alone) or drawn["batch"] > 5:
        drawn |= {"steps": min(drawn["steps"], choice.randint(1, 3))}
    if drawn["memory"] == "zero tensor" and drawn["dtype"] in ("bfloat16", "float16"):
        drawn["memory"] = "contiguous"  # with AMX torch's own LSTM of those reads memory that is not there
    if choice.random() < 0.02:  # across a chunk of the kernels, 64 rows
        drawn |= {"steps": choice.randint(60, 130), "batch": 1, "layers": 1, "hidden": choice.randint(1, 20)}
        drawn |= policies(choice, 1, bidirectional) | {"dropout": 0.0, "proj": 0, "weights": "torch", "delta": "no"}
    elif choice.random() < 0.01:  # beyond a block of rows, which is 128
        drawn |= {"steps": choice.randint(2, 3), "batch": choice.choice((129, 130, 257)), "stream": 0, "rows": 0}
        drawn |= {"hidden": choice.randint(1, 20), "layers": min(drawn["layers"], 2), "proj": 0, "weights": "torch"}
        drawn |= policies(choice, drawn["layers"], bidirectional) | {"delta": "no"}
    if choice.random() < 0.06 and drawn["quantize"] == "fp32":  # others cannot be followed step by step
        drawn |= {"split": choice.choice(SPLITS), "delta": "no", "hold": "no", "time": "no", "depth": "no"}
        drawn |= {"steps": max(drawn["steps"], choice.randint(3, 6))}
    return drawn


def policies(choice: random.Random, layers: int, bidirectional: bool) -> dict[str, str]:
    """Policies that may act together on a stack."""
    chosen = {"delta": "no", "hold": "no", "time": "no", "depth": "no", "split": "no"}
    if choice.random() < 0.3:
        return chosen
    if choice.random() < 0.45:
        chosen["delta"] = choice.choice(DELTAS)
    if choice.random() < 0.4:
        chosen["hold"] = choice.choice(HOLDS)
    if choice.random() < 0.25 and not bidirectional:
        chosen["time"] = choice.choice(TIME_EXITS)
    if choice.random() < 0.3 and layers > 1:
        chosen["depth"] = choice.choice(DEPTH_EXITS)
    if layers == 1 and chosen["hold"] in ("hold layers", "skip and hold", "queue"):
        chosen["hold"] = "skip gates"
    if chosen["hold"] == "queue" and (bidirectional or chosen["depth"] != "no"):
        chosen["hold"] = "hold layers"
    if layers < 3 and "agreement" in chosen["depth"]:
        chosen["depth"] = chosen["depth"].split(",")[0]
    if chosen["time"] != "no" and chosen["depth"].startswith("sequence"):
        chosen["depth"] = "step"
    return chosen


def often(choice: random.Random, usual: str, values: tuple[str, ...], share: float) -> str:
    """The usual value with a probability, else any."""
    return usual if choice.random() < share else choice.choice(values)


LADDER: dict[str, Iterable[Any]] = {
    "odd": ("no",), "wrong": ("no",), "stream": (0, 1, 2, 3, 4), "rows": (0, 1, 2, 3, 4), "mode": ("no_grad",),
    "dtype": ("float32",), "default_dtype": ("float32",), "memory": ("contiguous",), "layout": ("padded",),
    "given": GIVEN, "split": ("no",), "time": ("no",), "depth": ("no",), "hold": ("no",), "delta": ("no", "uniform"),
    "pruned": ("no",), "quantize": ("fp32", "int8"), "weights": ("torch",), "signal": ("drift", "noise"),
    "bidirectional": (False,), "proj": (0, 1, 2, 3), "dropout": (0.0,), "bias": (True,), "batch_first": (False,),
    "layers": (1, 2, 3), "batch": (1, 2, 3), "steps": (1, 2, 3, 4, 6, 8, 12, 64, 65), "chunks": ("steps",),
    "hidden": (1, 2, 3, 4, 8, 16, 33), "inputs": (1, 2, 3, 4, 8, 16, 33),
}  # fmt: skip


def simpler(case: Case) -> Iterable[Case]:
    """With one field simpler, as far as the others allow it."""
    return (
        c for c in simpler_fields(case, LADDER) if c["proj"] < c["hidden"] and (c["layers"] > 1 or not c["dropout"])
    )
