"""What Prometheus is told about the ledger. The names are a contract with dashboards."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class LedgerMetrics:
    """The ledger's metrics in one registry (tests bring their own)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.events = Counter(
            "gpucloud_ledger_events",
            "Watch events taken in, by stream and kind",
            ["stream", "kind"],
            registry=registry,
        )
        self.differences = Counter(
            "gpucloud_ledger_differences",
            "Lines that the audit or a stop record had to add or correct; must stay zero",
            ["kind"],
            registry=registry,
        )
        self.database_errors = Counter(
            "gpucloud_ledger_database_errors",
            "Writes that failed and were tried again",
            registry=registry,
        )
        self.waiting = Gauge(
            "gpucloud_ledger_queue_depth",
            "Objects whose changes are not stored yet",
            ["stream"],
            registry=registry,
        )
        self.open = Gauge(
            "gpucloud_ledger_open_intervals", "Pods that are being metered", registry=registry
        )
        self.leads = Gauge(
            "gpucloud_ledger_lease_held",
            "1 where this process writes the ledger",
            registry=registry,
        )
        self.heartbeat_age = Gauge(
            "gpucloud_ledger_heartbeat_age_seconds",
            "Seconds since everything in the cluster was known",
            registry=registry,
        )
        self.audit_age = Gauge(
            "gpucloud_ledger_audit_age_seconds",
            "Seconds since a complete list was compared with the ledger",
            registry=registry,
        )
        self.gpu_seconds = Gauge(
            "gpucloud_ledger_month_gpu_seconds",
            "GPU-seconds of this calendar month (UTC)",
            ["team", "product"],
            registry=registry,
        )
        self.cost = Gauge(
            "gpucloud_ledger_month_cost",
            "Cost of this calendar month (UTC) in the site's currency, also of storage",
            ["team", "product"],
            registry=registry,
        )
        self.heartbeat_at: float | None = None
        self.audited_at: float | None = None
        self.heartbeat_age.set_function(lambda: _age(self.heartbeat_at))
        self.audit_age.set_function(lambda: _age(self.audited_at))


def _age(at: float | None) -> float:
    return float("nan") if at is None else max(0.0, time.monotonic() - at)
