"""What a server did, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

if TYPE_CHECKING:
    from .service import Service

PREFIX = "adaptive_lstm_"
RECENT = 4096  # ticks that quantiles are taken over
QUANTILES = (0.5, 0.99)


class Ticks:
    """How long ticks took: all of them, and the recent ones one by one."""

    def __init__(self) -> None:
        self.count = self.frames = 0
        self.seconds = 0.0
        self._recent = deque[float](maxlen=RECENT)

    def add(self, streams: int, seconds: float) -> None:
        """One that advanced so many streams."""
        self.count, self.frames, self.seconds = self.count + 1, self.frames + streams, self.seconds + seconds
        self._recent.append(seconds)

    def quantile(self, q: float) -> float:
        """Of the recent ones, in seconds; NaN before the first."""
        return float(np.quantile(self._recent, q)) if self._recent else float("nan")


class Told:
    """Counts of what clients were told: refusals by status, and ends of sequences by reason."""

    def __init__(self) -> None:
        self.refused, self.ended = Counter[int](), Counter[str]()


class Metrics:
    """Collects the figures of a service whenever it is asked; those of ``prometheus_client`` take it as a collector."""

    def __init__(self, service: Service):
        self._service = service
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Any]:
        """All families."""
        service = self._service
        ticks, stats, monitor = service.ticks, service.pool.stats, service.lstm.monitor
        yield _gauge("streams", "Streams that are open.", len(service.sequences))
        yield _gauge("streams_limit", "Streams that may be open.", service.options.streams)
        yield _gauge("ready", "Whether new streams are taken.", service.ready)
        summary = SummaryMetricFamily(
            f"{PREFIX}tick_seconds", "Time of a tick; quantiles are those of recent ones.", ticks.count, ticks.seconds
        )
        for q in QUANTILES:
            summary.add_sample(f"{PREFIX}tick_seconds", {"quantile": str(q)}, ticks.quantile(q))
        yield summary
        yield CounterMetricFamily(f"{PREFIX}frames", "Frames that have run.", ticks.frames)
        yield _gauge("activity", "Share of the columns of the weight matrices that were computed.", stats.activity)
        yield _gauge("ran", "Share of the layers' timesteps with any matrix work.", stats.ran)
        if monitor is not None:
            yield _gauge("drift", "Whether the model skips unlike in its calibration.", monitor.warned)
        yield from self._of_audit()
        yield _counts("refused", "Requests and messages that were refused.", "status", service.told.refused)
        yield _counts("ended", "Sequences that ended.", "reason", service.told.ended)

    def _of_audit(self) -> Iterator[Any]:
        audited = self._service.audited
        now = "off" if audited is None else str(audited.audit.state)
        family = GaugeMetricFamily(f"{PREFIX}audit_state", "1 at the state of the audit.", labels=["state"])
        for state in ("off", "holding", "revoked"):
            family.add_metric([state], float(state == now))
        yield family
        if audited is not None:
            yield _gauge("audit_evidence", "Against the promise of the certificate.", audited.audit.evidence)
            yield _gauge("audit_mean_loss", "Of the sequences that were compared.", audited.audit.mean_loss)
            yield CounterMetricFamily(f"{PREFIX}audited", "Sequences that were compared.", audited.audit.audited)


def _gauge(name: str, words: str, value: float) -> Any:
    return GaugeMetricFamily(PREFIX + name, words, float(value))


def _counts(name: str, words: str, label: str, counts: Counter[Any]) -> Any:
    family = CounterMetricFamily(PREFIX + name, words, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([str(key)], count)
    return family
