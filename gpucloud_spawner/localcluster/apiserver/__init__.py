"""The API server of the embedded cluster: Kubernetes' API over HTTPS, objects in memory and SQLite.

It stores and tells; what is done about an object is the work of the controllers, the scheduler and
the kubelet, which reach it only over HTTP.
"""

from __future__ import annotations

from .server import APIServer

__all__ = ["APIServer"]
