"""Does an audit revoke what loses too much, soon, and hardly ever what does not?

``python -m eval.audit`` simulates audits on losses of known risk:

- just below the limit, for as long as the audit runs: the share of the audits that ever revoke. It may be at most
  1 - confidence, give or take the chance of so many repeats;
- at twice the limit: the median number of audited calls until revocation. "optimum" is log(1 / alpha) / KL(2m, m), the
  mean number for a test that knows both risks; no test that is valid at every time needs fewer on average.

``--zoo PATH`` adds a real model: the recogniser of spoken digits in int8 with a certified policy, audited at rate 1 on
its fresh recordings in random order, as they are and with noise added.
"""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

import adaptive_lstm as al
from adaptive_lstm.calibration.e_process import EProcess
from adaptive_lstm.cli.demo.run import int8
from eval import zoo
from eval.savings import CONFIDENCE, calibrated
from eval.shared import common

LIMITS = (0.02, 0.1)
REPEATS, AUDITS = 1000, 100_000
QUICK_REPEATS, QUICK_AUDITS = 20, 2_000
BELOW = 0.999  # of the limit: the risk of a promise that is just kept
CHANCE = 0.01  # a correct audit exceeds what is allowed in at most this share of the rows
MODEL, CALLS, NOISES = "fsdd-digits", 2_000, (0.0, 4.0)  # noise in standard deviations of the inputs
HEADER = [
    "limit",
    "audits",
    "repeats",
    "revoked at the limit",
    "allowed",
    "calls until revoked at twice it",
    "optimum",
    "",
]


def simulated(limit: float, repeats: int, audits: int, seed: int) -> dict[str, Any]:
    """Audits of 0/1 losses: the share revoked just below the limit, and the calls until revocation at twice it."""
    random, level = np.random.default_rng(seed), math.log(1 / (1 - CONFIDENCE))
    kept = sum(EProcess(limit).after(random.random(audits) < BELOW * limit).peak >= level for _ in range(repeats))
    took = [_calls_until(EProcess(limit), 2 * limit, level, random) for _ in range(repeats)]
    p, m = 2 * limit, limit
    divergence = p * math.log(p / m) + (1 - p) * math.log((1 - p) / (1 - m))
    revoked, allowed = kept / repeats, float(binom.ppf(1 - CHANCE, repeats, 1 - CONFIDENCE)) / repeats
    return {
        "limit": limit,
        "confidence": CONFIDENCE,
        "repeats": repeats,
        "audits": audits,
        "revoked": revoked,
        "allowed": allowed,
        "median": float(np.median(took)),
        "quartiles": np.quantile(took, (0.25, 0.75)).tolist(),
        "optimum": level / divergence,
        "verdict": "PASS" if revoked <= allowed else "MISS",
    }


def _calls_until(found: EProcess, risk: float, level: float, random: np.random.Generator) -> int:
    """Audited calls until the evidence reaches a level."""
    while True:
        losses = random.random(500) < risk
        reached = np.flatnonzero(found.log_evidences(losses) >= level)
        if len(reached):
            return found.count + int(reached[0]) + 1
        found = found.after(losses)


def real(folder: Path, calls: int, *, quick: bool) -> list[dict[str, Any]]:
    """A certified model, audited on its fresh recordings as they are and with noise."""
    (model,) = zoo.with_material((MODEL,), folder)
    material = model.prepared(quick=quick)
    fast = int8(model.model)
    result = calibrated(fast, material, "macs", progress=False)
    deviation = torch.cat([x.reshape(-1) for x in material.fresh]).std()
    return [_audited(model.model, fast, result, material.fresh, float(noise * deviation), calls) for noise in NOISES]


def _audited(original: Any, fast: Any, result: al.Calibration, fresh: Any, noise: float, calls: int) -> dict[str, Any]:
    served = result.apply(fast, force=True)
    (limit,) = (one["limit"] for one in result.certificate.losses)
    random = torch.Generator().manual_seed(0)

    def met() -> Tensor:
        x: Tensor = fresh[int(torch.randint(len(fresh), (), generator=random))]
        return x + noise * torch.randn(x.shape, generator=random)

    with (
        al.audit(served, original, max_loss=limit, confidence=CONFIDENCE, rate=1.0) as audit,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", al.AuditWarning)
        warnings.simplefilter("ignore", al.DriftWarning)
        while audit.seen < calls and audit.state == "holding":
            served(met())
    return {
        "noise": noise,
        "limit": limit,
        "policy": result.certificate.policy,
        "state": audit.state,
        "calls": audit.seen,
        "mean_loss": audit.mean_loss,
        "evidence": audit.evidence,
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, help="folder of pretrained models; see eval/zoo")
    options = parser.parse_args()
    repeats, audits = (QUICK_REPEATS, QUICK_AUDITS) if options.quick else (REPEATS, AUDITS)
    with common.inference(options.threads):
        common.headline(options)
        found = [simulated(limit, repeats, audits, seed) for seed, limit in enumerate(LIMITS)]
        records: list[dict[str, Any]] = [{"group": "simulated", "case": f"{one['limit']:g}", **one} for one in found]
        if options.zoo is not None:
            served = real(options.zoo, CALLS, quick=options.quick)
            records += [{"group": MODEL, "case": f"noise {one['noise']:.3g}", **one} for one in served]
    print("\n".join(json.dumps(record) for record in records) if options.json else _text(records))
    common.save(options, "audit", records)


def _text(records: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"{r['limit']:g}",
            f"{r['audits']}",
            f"{r['repeats']}",
            f"{r['revoked']:.3f}",
            f"{r['allowed']:.3f}",
            f"{r['median']:.0f} ({r['quartiles'][0]:.0f} to {r['quartiles'][1]:.0f})",
            f"{r['optimum']:.0f}",
            r["verdict"],
        ]
        for r in records
        if r["group"] == "simulated"
    ]
    lines = [common.table(f"audits of 0/1 losses, confidence {CONFIDENCE:g}", HEADER, rows)]
    lines += [
        f"{r['group']}, {r['case']}: {r['state']} after {r['calls']} audited calls, loss {r['mean_loss']:.4f}, limit "
        f"{r['limit']:g}"
        for r in records
        if r["group"] != "simulated"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
