"""Records of every evaluation as small as the report takes them, some with what it must warn about."""

from typing import Any

import numpy as np

from eval.heatmap import pack

MACHINE = {"cpu": "test <cpu>", "cores": 2, "backend": "native", "isa": "avx2", "python": "3.11", "threads": 1,
           "time": "2026-01-01T00:00:00+00:00"}  # fmt: skip
STAMP = {"machine": MACHINE, "versions": {"torch": "2"}, "commit": "abc1234"}


def timing(median: float, spread: float = 0.05) -> dict[str, float]:
    quantiles = {f"p{q:02}": median * (1 + spread * (q - 50) / 50) for q in (5, 25, 75, 95, 99)}
    return {"median": median, **quantiles, "rounds": 20, "calls": 1}


def speed(median: float | None) -> dict[str, float | None]:
    around = median or 1.0
    return {"median": median, "p25": 0.98 * around, "p75": 1.02 * around, "rounds": 20}


def contender(name: str, **fields: Any) -> dict[str, Any]:
    return {"contender": name, "ours": name.startswith("adaptive"), "precision": "fp32", "I": 4, "H": 8, "L": 2,
            "batch": 1, "threads": 1, **fields}  # fmt: skip


NAMES = ("torch", "ORT int8", "adaptive int8")


def frontier() -> list[dict[str, Any]]:
    def quality(f1: float, *, kept: bool) -> dict[str, Any]:
        return {"figures": {"frame F1": f1}, "distance": 1 - f1, "distance_steps": None, "kept": kept, "lost": ""}

    seconds = {"torch": timing(8e-3), "ORT int8": timing(2e-3), "ORT": timing(5e-3), "ours int8": timing(1e-3),
               "ours delta 0.01": timing(9e-4)}  # fmt: skip
    won = {"peer": "ORT", "ours": "ours int8", "best peer": speed(5.0), "torch": speed(8.0), "verdict": "faster"}
    lost = {"peer": "ORT", "ours": "ours int8", "best peer": speed(0.5), "torch": speed(None), "verdict": "slower"}
    return [
        {
            "group": "vad", "case": "1 thread(s)", "dense": {"frame F1": 0.9}, "distance": "frames", "every": 1,
            "quality": {"torch": quality(0.9, kept=True), "ORT": quality(0.9, kept=True),
                        "ORT int8": quality(0.5, kept=False), "ours int8": quality(0.899, kept=True),
                        "ours delta 0.01": quality(float("nan"), kept=False)},
            "seconds": {"whole": seconds, "step": seconds}, "verdicts": {"whole": won, "step": lost},
            "unavailable": {"ncnn": "not installed"},
        }
    ]  # fmt: skip


def savings() -> list[dict[str, Any]]:
    one = {
        "case": "macs", "certified": True, "policy": "delta 1", "skipped": 0.5, "skipped_recurrent": 0.6, "saved": 0.1,
        "loss": "disagreement", "max_loss": 0.05, "loss_test": 0.01, "loss_fresh": 0.02, "fresh_at_least": 0.01,
        "promise": "a recording", "seconds": 12.0, "speed": {base: speed(1.5) for base in ("int8", "fp32", "torch")},
    }  # fmt: skip
    noisy = {**one, "saved": None, "speed": {**one["speed"], "torch": {**speed(1.5), "p75": 9.0}}}  # type: ignore[dict-item]
    broken = {**one, "loss_fresh": 0.2, "fresh_at_least": 0.11, "saved": -0.4}
    return [{"group": "good", **one}, {"group": "noisy", **noisy}, {"group": "broken", **broken},
            {"group": "hopeless", "case": "macs", "failed": "CalibrationError: too few"}]  # fmt: skip


def heatmap() -> list[dict[str, Any]]:
    sent = np.arange(6 * 11).reshape(6, 11) % 3 == 0
    rows = [{"layer": 1, "x": [0.5] * 6, "h": [0.25] * 6}]
    return [{"group": "digits", "case": "certified", "title": "digits", "certified": True, "policy": "delta 1",
             "max_loss": 0.02, "loss": "disagreement", "confidence": 0.95, "rows": rows, "done": [0.4] * 6, "left": 5,
             "columns": [pack(sent)], "hidden": 8, "picture": [[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]] * 3}]  # fmt: skip


def latency() -> list[dict[str, Any]]:
    race = {name: timing(1e-3 * (i + 1)) for i, name in enumerate(reversed((*NAMES, "adaptive fp32")))}
    shares = [("idle", 0.0), ("p=0.5", 0.55), ("p=1", 1.0)]
    targets = [{"verdict": "PASS", "who": who, "share": speed(part + 0.2), "activity": part, "column_part": part}
               for who, part in shares]  # fmt: skip
    delta = {"group": "delta", "case": "(8, 8, 1) whole", "targets": targets,
             "seconds": {who: timing(1e-3) for who, _ in shares}}  # fmt: skip
    plain: list[dict[str, Any]] = [
        {"group": group, "case": "(4, 8, 2)", "seconds": race, "targets": []} for group in ("whole", "stream", "tiny")
    ]
    return [*plain, {"group": "batch", "case": "(4, 8, 2, 8)", "seconds": race, "targets": []}, delta]


def streaming() -> list[dict[str, Any]]:
    step = [
        {"group": "step", "case": n, **contender(n), "seconds": timing(1e-4), "speed": {"torch": speed(2.0)}}
        for n in NAMES
    ]
    times = {"warm": timing(5e-5), "seconds": timing(2e-4), "reading": timing(1e-4)}
    cold = [
        {"group": "cold", "case": n, **contender(n), **times, "between": 64 << 20, "speed": {"torch": speed(2.0)}}
        for n in NAMES
    ]
    served = {"way": "batched", "rate": 100.0, "counts": [9, 10, 11], "streams": 10.0, "streams_per_core": 10.0,
              "meaningful": True, "tick": timing(9e-3)}  # fmt: skip
    streams = [{"group": "streams", "case": n, **contender(n), **served} for n in NAMES[1:]]
    none = {**served, "counts": [0], "streams": 0.0, "streams_per_core": 0.0, "meaningful": False, "tick": None}
    return [*step, *cold, *streams, {"group": "streams", "case": "torch", **contender("torch"), **none}]


def scaling() -> list[dict[str, Any]]:
    points = [
        {"group": group, "case": f"{group} {name} {size}", **contender(name), "T": 100, field: size,
         "seconds": timing(1e-5 * size), "per_cell_step": 1e-7, "speed": {"torch": speed(None)}}
        for group, field in (("width", "H"), ("depth", "L"), ("length", "T"))
        for name in NAMES for size in (1, 2, 4)
    ]  # fmt: skip
    line = {"fixed": {**speed(1e-6), "meaningful": False}, "per_step": speed(1e-6), "misfit": 0.1, "lengths": [1, 2]}
    return [*points, {"group": "fixed", "case": "fixed", **contender("torch"), **line}]


def throughput() -> list[dict[str, Any]]:
    lengths = {"law": "log-normal", "sequences": 4, "mean": 3.0, "longest": 5, "padding": 0.4}
    return [
        {"group": "throughput", "case": f"{name} {size}", **contender(name), "batch": size, "form": "padded",
         "lengths": lengths, "seconds": timing(1e-2), "sequences_per_second": 100.0 * size,
         "speed": {"torch, padded": speed(2.0), "torch, packed": speed(None)}}
        for name in NAMES for size in (1, 4)
    ]  # fmt: skip


def roofline() -> list[dict[str, Any]]:
    return [{"group": "roofline", "case": "(4, 8, 2) adaptive int8", "megabytes": 1.0, "read_bandwidth": 1e10,
             "multiply_rate": 1e10, "step_seconds": 1e-4, "step_bandwidth": 9e9, "step_of_bandwidth": 0.9,
             "whole_step_seconds": 1e-5, "whole_of_bandwidth": 1.5, "whole_of_multiply": 0.5}]  # fmt: skip


def long_stream() -> list[dict[str, Any]]:
    return [{"group": "long stream", "case": "int8", "steps": 1000, "seconds": 1.0, "activity": 1.0, "counted": True,
             "reference": [1e-7, 1e-7], "fresh": [1e-3, 2e-3], "growth": 0}]  # fmt: skip


def limits() -> list[dict[str, Any]]:
    one = {"torch": timing(1e-3), "ours": timing(2e-4), "limit": 1e-4, "share": 0.5, "at the limit": 10.0}
    return [{"group": "vad", "case": "whole", "call": timing(5e-5), **one}, {"group": "vad", "case": "step", **one}]


def compression() -> list[dict[str, Any]]:
    rows = [("fp32", 1.0, 1.0), ("int8", 0.26, 0.999), ("unit 25%", 0.6, 0.8)]
    done = [{"group": "vad", "case": row, "row": row, "task": {"frame F1": 0.9}, "fidelity": fidelity, "bytes": size,
             "zeros": 0.1, "seconds": 1e-4, "faster": 2.0, "faster_than_unpruned": None}
            for row, size, fidelity in rows]  # fmt: skip
    return [*done, {"group": "vad", "case": "2:4", "row": "2:4", "refused": "odd width"}]


def within_budget() -> list[dict[str, Any]]:
    one = {"case": "within budget", "setting": "int8, 50% zeros", "bytes": 0.17, "dense": {"frame F1": 0.9},
           "task": {"frame F1": 0.899}, "distance": 0.004, "verdict": "PASS", "why": ""}  # fmt: skip
    missed = {"verdict": "MISS", "why": "RMSE beyond what is allowed", "dense": {"RMSE": 2.0}, "task": {"RMSE": 3.0}}
    return [{"group": "vad", **one}, {"group": "engines", **one, **missed}]


def taxonomy() -> list[dict[str, Any]]:
    return [{"group": "vad", "case": f"{saliency}", "distance": "frames", "saliency": saliency, "order": order,
             "refit": refit, "sparsity": [0.1, 0.3], "losses": [0.0, 0.1]}
            for saliency, order, refit in (("magnitude", 0, False), ("taylor", 1, False), ("obs", 2, True))
    ]  # fmt: skip


def ablation() -> list[dict[str, Any]]:
    both = {"torch": speed(3.0), "base": speed(1.2)}
    one = {"model": "vad", "distance": 0.01, "distance_name": "frames", "loss": 0.01, "max_loss": 0.05, "done": 0.5,
           "bytes": 0.26, "speed": {"whole": both}}  # fmt: skip
    return [
        *({"group": "thresholds", "case": f"t{i}", "variant": f"t{i}", **one, "done": i / 4,
           "settings": {"track": "delta"}} for i in (1, 2, 3)),
        {"group": "precision", "case": "int8", "variant": "int8", **one, "settings": {}},
        {"group": "pruning", "case": "unit", "variant": "unit", "model": "vad", "settings": {}, "refused": "tied"},
    ]  # fmt: skip


def validity() -> list[dict[str, Any]]:
    rows = [{"confidence": level, "false": 0.01, "allowed": 0.07, "verdict": "PASS", "untested": 0.5, "certified": 1.0,
             "saving_of_oracle": 0.8} for level in (0.9, 0.95)]  # fmt: skip
    return [{"group": "edge", "case": "0/1", "repeats": 1000, "rows": rows}]


def never_slower() -> list[dict[str, Any]]:
    then = {"median": 0.5, "p25": 0.4, "p75": 0.6, "rounds": 9}
    cell = {"first": 0.8, "then": then, "route": "native", "torch": timing(1e-3), "adapted": timing(5e-4)}
    slow = cell | {"then": then | {"median": 1.2, "p25": 1.1}}
    return [{"group": "float32", "case": name, **one} for name, one in (("float32 (4, 8, 1), B 1, T 1", cell),
            ("float32 (4, 8, 2), B 1, T 1", slow))]  # fmt: skip


def demo() -> list[dict[str, Any]]:
    row = {"score": 0.99, "agreement": 1.0, "macs": 0.3, "sequence": timing(1e-3), "step": timing(1e-5),
           "sequence_gain": speed(2.0), "step_gain": speed(3.0)}  # fmt: skip
    loss = {"name": "disagreement", "limit": 0.02}
    return [{"group": "digits", "case": "certified", "title": "digits", "score_name": "accuracy",
             "rows": [{"name": "torch", **row}, {"name": "adaptive certified", **row}],
             "agreement_name": "same class", "sequences": 9, "unit": "strips", "steps": 9, "sequence_gain": speed(2.5),
             "stream_gain": speed(1.5),
             "certificate": {"losses": [loss], "confidence": 0.95, "policy": "exit"}}]  # fmt: skip


def cost_model() -> list[dict[str, Any]]:
    times = [{"name": f"hold {p}", "predicted": p, "time": speed(p)} for p in (0.5, 0.7, 1.2)]
    return [{"group": "candidates", "case": "vad", "rank": 0.93, "least": 0.9, "candidates": times}]


def calls() -> list[dict[str, Any]]:
    call = {"seconds": {name: timing(1e-5) for name in ("call", "native", "step", "torch")}, "added": 4e-6}
    parts = ("nn.Module", "three results")
    part = {"seconds": {name: timing(1e-6) for name in ("native", *parts)}, "added": dict.fromkeys(parts, 2e-6)}
    return [
        {"group": "call", "case": "(4, 8, 1) fp32, T 1", **call},
        {"group": "cell", "case": "(8, 8) int8", **call},
        {"group": "parts", "case": "(4, 8, 1)", **part},
    ]


def onnx() -> list[dict[str, Any]]:
    seconds = {name: timing(1e-4) for name in ("session", "run", "adapted", "runtime")}
    return [{"group": "call", "case": "(4, 8, 1), T 1", "seconds": seconds, "ratio": 1.3}]


def graphs() -> list[dict[str, Any]]:
    seconds = {"eager": timing(2e-3), "compiled": timing(2.1e-3)}
    return [{"group": "encoder", "case": "int8, T 160", "seconds": seconds, "speed": speed(0.95), "verdict": "MISS"}]


def pool() -> list[dict[str, Any]]:
    ratios = {name: {"median": m} for name, m in (("arrays", 1.05), ("dictionary", 1.2), ("every other", None))}
    tick = {"most": 1.1, "ratios": ratios, "seconds": {"bare": timing(1e-3)}}
    share = {"certified": True, "policy": "hold 0.1", "work": 0.5, "frames": 0.8, "time": 0.7, "times": [0.6, 0.8],
             "streams": 9, "seats": 4, "slack": 0.1}  # fmt: skip
    return [{"group": "tick", "case": "(4, 8, 2) int8, 4 streams", **tick},
            {"group": "certified", "case": "fsdd-digits", **share},
            {"group": "held", "case": "fsdd-digits, x_share 1", **share, "certified": False, "time": 0.61}]  # fmt: skip


def silero() -> list[dict[str, Any]]:
    names = ("runtime", "runtime silero_vad", "stream exact", "deploy int8")
    one = {"rows": 16, "seconds": {n: timing(1e-4 / (i + 1)) for i, n in enumerate(names)},
           "streams": dict.fromkeys(names, 500.0), "peer": "runtime", "ours": "deploy int8"}  # fmt: skip
    return [{"group": "lstm", "case": "16 streams", **one, "speed": speed(3.6)},
            {"group": "whole", "case": "16 streams", **one, "speed": speed(None)}]  # fmt: skip


def bulk() -> list[dict[str, Any]]:
    about = {"sequences": 9, "timesteps": 99, "longest": 30, "batch_tokens": 64, "timesteps_per_second": 1234.0}
    speeds = {"torch, one by one": speed(3.0), "torch, sorted": speed(None)}
    return [{"group": "bulk", "case": f"{name}, {way}", **contender(name), "way": way, "seconds": timing(1e-2), **about,
             "speed": speeds} for name, way in (("torch", "sorted"), ("adaptive int8", "mapped"))]  # fmt: skip


def bulk_ray() -> list[dict[str, Any]]:
    rates = {"mapped": 4e5, "scorer": 4.2e5, "ray": 3.8e5, "ray with start": 2e5}
    return [{"group": "bulk_ray", "case": "(8, 16, 1), int8, 2 core(s)", "precision": "int8", "I": 8, "H": 16, "L": 1,
             "cores": 2, "rates": rates, "shares": {"ray": [0.94, 0.95, 0.97]}, "share": 0.95, "goal": 0.9,
             "verdict": "PASS"}]  # fmt: skip


def split_time() -> list[dict[str, Any]]:
    def one(model: str, goal: float | None, *distances: float) -> dict[str, Any]:
        judged = [{"setting": f"chunks of {64 << i}, warm-up 16", "speed": speed(2.0 - i), "distance": distance,
                   "residual": 0.01, "extra": 0.25} for i, distance in enumerate(distances)]  # fmt: skip
        return {"group": model, "case": "int8, 1 thread(s)", "precision": "int8", "threads": 1, "distance": "classes",
                "timesteps": {"lstm": 2048}, "rows": speed(2.5), "seconds": timing(1e-2), "judged": judged,
                "goal": goal}  # fmt: skip

    return [one("tagger", 1.7, 0.001, 0.0), one("reader", 1.7, 0.2, 0.001), one("encoder", None, 0.3)]


def audit() -> list[dict[str, Any]]:
    simulated = {"limit": 0.02, "confidence": 0.95, "repeats": 1000, "audits": 100_000, "revoked": 0.04,
                 "allowed": 0.066, "median": 460.0, "quartiles": [250.0, 800.0], "optimum": 378.0,
                 "verdict": "PASS"}  # fmt: skip
    real = {"noise": 0.5, "limit": 0.02, "policy": "hold 0.1", "state": "revoked", "calls": 120, "mean_loss": 0.08,
            "evidence": 25.0}  # fmt: skip
    return [{"group": "simulated", "case": "0.02", **simulated}, {"group": "fsdd-digits", "case": "noise 0.5", **real}]


def footprint() -> list[dict[str, Any]]:
    stages = {stage: timing(0.1) for stage in ("import", "load", "first", "second", "process")}
    memory = {"peak": 1e8, "now": 9e7, "after_import": 8e7, "python": 1e7, "added": 2e7}
    return [{"group": "footprint", "case": n, **contender(n), "seconds": stages, "speed": {"torch": speed(2.0)},
             "weights": 1e6, "memory": memory} for n in NAMES]  # fmt: skip


def fuzzing() -> list[dict[str, Any]]:
    covered = {"weights: huge": 3, "weights: torch": 7, "compared: close": 12, "tie: send": 2}
    lstms = {"group": "lstm", "covered": covered, "largest": {"tie: send": 0.02}}
    files = {"group": "files", "covered": {"format: npz": 10}, "largest": {}}
    return [{"case": "all", "seed": 1, "cases": {"avx2": 5, "generic": 5}, "faults": {"hang": 1}, **one}
            for one in (lstms, files)]  # fmt: skip


def linearity() -> list[dict[str, Any]]:
    took = {"median": 0.5, "p25": 0.4, "p75": 0.6, "rounds": 9}
    judged = {"who": "s=0.5", "share": 0.5, "took": took, "allowed": 0.6, "verdict": "PASS"}
    inert = judged | {"who": "inert", "share": 1.0, "allowed": 1.02, "took": took | {"median": None}, "verdict": "n/a"}
    record = {"title": "Delta on h", "call": 0.03, "dense": timing(1e-3), "judged": [judged, inert]}
    return [{"group": "delta_h", "case": "(40, 128, 3), T 50", **record}]


def embedded() -> list[dict[str, Any]]:
    sizes = {"code": 2736, "weights": 25088, "state": 400, "stack": 468}
    place = {"group": "1 x 32", "processor": "Cortex-M4", "precision": "int8", **sizes}
    ours = {"who": "adaptive-lstm", "wanted": 1.0, "activity": 1.0, "exact": True, "instructions": 21684.0, **place}
    half = ours | {"case": "m4 int8 0.5", "wanted": 0.5, "activity": 0.51, "instructions": 22496.0}
    rival = {"case": "m4 int8 CMSIS-NN", "who": "CMSIS-NN", "wanted": 1.0, "activity": 1.0, "difference": 0.006}
    return [{"case": "m4 int8 1", **ours}, half, {"instructions": 31405.0, **rival, **place}]


def arm_bounds() -> list[dict[str, Any]]:
    shares = {"Cortex-A55": 0.5, "Neoverse N1": 0.99}
    record = {"product": "sdot", "shares": shares, "products": 24, "instructions": 36}
    return [{"group": "neondot", "case": "int8, 6 rows", **record}]


def cores() -> list[dict[str, Any]]:
    record = {"precision": "int8", "seconds": {"one": timing(4e-3), "many": timing(2e-3)}, "speed": speed(2.0)}
    case = "3 x 256, batch 1, T = 160, int8, 2 threads"
    return [{"group": "layers", "case": case, "goal": 1.6, "chosen": 2, "threads": 2, **record}]


WRITERS = (frontier, demo, savings, heatmap, latency, never_slower, calls, onnx, graphs, linearity, streaming, pool,
           silero, long_stream, scaling, cores, throughput, bulk, bulk_ray, split_time, roofline, limits, compression,
           within_budget, taxonomy, ablation, validity, cost_model, audit, footprint, embedded, arm_bounds,
           fuzzing)  # fmt: skip
