"""The service `gpucloud`: pages and REST API of usage, cost, budgets and GPUs, and the meter.

A process of its own (`python -m gpucloud_spawner.portal`), so that SQL and charts never block the
hub and metering goes on while the hub restarts. Only `metering` speaks SQL, only `kube` Kubernetes.
"""
