"""What Prometheus is told about jobs. The names are a contract with dashboards."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class JobMetrics:
    """The reconciler's metrics in one registry (tests bring their own)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.jobs = Gauge("gpucloud_jobs", "Jobs by state", ["state"], registry=registry)
        self.errors = Counter(
            "gpucloud_job_reconcile_errors",
            "Looks at a job that failed and were tried again",
            registry=registry,
        )
        self.seconds = Histogram(
            "gpucloud_job_reconcile_seconds",
            "Seconds that one look at a job took",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=registry,
        )
        self.waiting = Gauge(
            "gpucloud_job_queue_depth", "Jobs that wait to be looked at", registry=registry
        )
