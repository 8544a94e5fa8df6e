"""The records of the evaluations on disk, the commands that make them, and where and when they were taken."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]

COMMANDS = {
    "frontier": "python -m eval.frontier --zoo PATH",
    "quality": "python -m eval.quality --zoo PATH",
    "demo": "python -m eval.demo",
    "savings": "python -m eval.savings --zoo PATH",
    "heatmap": "python -m eval.heatmap --zoo PATH",
    "streaming": "python -m eval.streaming",
    "long_stream": "python -m eval.long_stream",
    "pool": "python -m eval.pool --zoo PATH",
    "silero": "python -m eval.silero --zoo PATH",
    "throughput": "python -m eval.throughput",
    "bulk": "python -m eval.bulk",
    "bulk_ray": "python -m eval.bulk_ray",
    "split_time": "python -m eval.split_time --zoo PATH",
    "latency": "python -m eval.latency",
    "scaling": "python -m eval.scaling",
    "cores": "python -m eval.cores",
    "linearity": "python -m eval.linearity",
    "never_slower": "python -m eval.never_slower",
    "calls": "python -m eval.calls",
    "onnx": "python -m eval.onnx",
    "graphs": "python -m eval.graphs --zoo PATH",
    "roofline": "python -m eval.roofline",
    "limits": "python -m eval.limits --zoo PATH",
    "compression": "python -m eval.compression --zoo PATH",
    "within_budget": "python -m eval.within_budget --zoo PATH",
    "taxonomy": "python -m eval.taxonomy --zoo PATH",
    "ablation": "python -m eval.ablation --zoo PATH",
    "validity": "python -m eval.validity",
    "cost_model": "python -m eval.cost_model --zoo PATH",
    "audit": "python -m eval.audit --zoo PATH",
    "footprint": "python -m eval.footprint",
    "embedded": "python -m eval.embedded --zoo PATH --cmsis-nn PATH --tflite-micro PATH",
    "arm_bounds": "python -m eval.arm_bounds",
    "fuzzing": "python -m tests.fuzz lstm --cases 100000 --minutes 600 --record eval/results",
}


def commands_of(records: Iterable[Record]) -> list[str]:
    """The commands that made records, each with the options that their case stands for."""
    found = dict.fromkeys((str(r.get("eval", "")), str(r["case"])) for r in records)
    commands = [COMMANDS[name] + _options(name, case) for name, case in found if name in COMMANDS]
    return list(dict.fromkeys(commands))


def _options(name: str, case: str) -> str:
    if name == "savings":
        return f" --objective {case.partition(',')[0]}"  # "latency, stream" is one of two uses
    return " --objective latency" if name == "validity" and case.endswith(", by time") else ""


@dataclass(frozen=True)
class Results:
    """All records of a folder, by the name of the evaluation."""

    by_name: Mapping[str, tuple[Record, ...]]

    def of(self, name: str, *groups: str) -> tuple[Record, ...]:
        """Those of one evaluation, in file order; with ``groups``: of these groups only."""
        found = self.by_name.get(name, ())
        return tuple(r for r in found if r["group"] in groups) if groups else found

    def only(self, wanted: Callable[[Record], bool]) -> "Results":
        """The records that are wanted."""
        return Results({name: tuple(filter(wanted, records)) for name, records in self.by_name.items()})

    def everything(self) -> Iterable[Record]:
        """The records of all evaluations."""
        return (record for records in self.by_name.values() for record in records)


def read(folder: Path) -> Results:
    """Every ``folder/*.jsonl``; a missing or empty file has no records. ValueError names the line that is no record."""
    found: dict[str, tuple[Record, ...]] = {}
    for path in sorted(folder.glob("*.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found[path.stem] = tuple(_record(path, n, line) for n, line in enumerate(lines, start=1) if line.strip())
    return Results(found)


def _record(path: Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name}, line {number} is not JSON ({error}); delete it or run the script again"
        ) from None
    if not isinstance(record, dict) or not {"group", "case"} <= record.keys():
        raise ValueError(f"{path.name}, line {number} is no record: expected an object with 'group' and 'case'")
    return record


@dataclass(frozen=True)
class Origin:
    """Where and when records were taken; each list has no doubles and is in the order met."""

    machines: tuple[str, ...]
    threads: tuple[str, ...]
    versions: tuple[str, ...]
    commits: tuple[str, ...]
    first: str
    last: str


def origin(records: Iterable[Record]) -> Origin:
    """Machine, threads, versions, commits and time span of records."""
    every = list(records)
    times = sorted(str(r["machine"]["time"]) for r in every if "time" in r.get("machine", {}))
    return Origin(
        machines=_distinct(machine_of(r) for r in every if r.get("machine")),
        threads=_distinct(str(r.get("threads", r.get("machine", {}).get("threads", "?"))) for r in every),
        versions=_distinct(
            ", ".join([*(f"{k} {v}" for k, v in r["versions"].items()), f"Python {r['machine'].get('python', '?')}"])
            for r in every
            if "versions" in r and "machine" in r
        ),
        commits=_distinct(str(r["commit"]) for r in every if "commit" in r),
        first=times[0] if times else "",
        last=times[-1] if times else "",
    )


def machine_of(record: Record) -> str:
    """Processor, cores, backend and instruction set of a record."""
    m = record.get("machine", {})
    return f"{m.get('cpu', 'unknown processor')}, {m.get('cores', '?')} cores, {m.get('backend')} {m.get('isa')}"


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
