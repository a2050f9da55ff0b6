"""A connection to the Kubernetes API, as the machine or the pod that we run in offers it."""

from __future__ import annotations

import os

from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration


class NoCluster(Exception):
    """There is no way to a cluster (yet); the text says what is missing."""


async def connect(connections: int | None = None) -> ApiClient:
    """A client of the cluster that we run in, else of the one of KUBECONFIG. Raises NoCluster.

    ``connections``: the most at a time; None: the library's own limit.
    Makes no request: whether the cluster answers is for its callers to find out, again and again.
    """
    settings = Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        try:
            # named here: the library looks at the environment only when it is imported
            file = os.environ.get("KUBECONFIG") or None
            await config.load_kube_config(config_file=file, client_configuration=settings)
        except (config.ConfigException, OSError, ValueError, TypeError) as error:
            raise NoCluster(f"no cluster to connect to: {error}") from error
    if connections is not None:
        settings.connection_pool_maxsize = connections
    return ApiClient(configuration=settings)
