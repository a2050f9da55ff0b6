"""What the hub does for the ledger, as a process to be killed: `python -m ... KUBECONFIG URL`.

It sees the pods through a watch of its own and writes a stop record of each that is ended, as
`spawner.stops` does: with what it saw last, which may be out of date, and perhaps never.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kubernetes_asyncio import client, config
from sqlalchemy.exc import DBAPIError

from gpucloud_spawner.kube.watch import Follower
from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.stops import record_stop

log = logging.getLogger(__name__)


async def serve(kubeconfig: str, url: str) -> None:
    settings = client.Configuration()
    await config.load_kube_config(kubeconfig, client_configuration=settings)
    engine = db.make_engine(url)
    thread = ThreadPoolExecutor(1)

    def write(pod: dict[str, Any], gone: bool) -> None:
        try:
            record_stop(engine, pod, gone=gone)
        except DBAPIError as error:  # as the hub: a stop does not fail for its record
            log.warning("No stop record: %s", str(error).splitlines()[0])

    def on_event(kind: str, item: dict[str, Any]) -> None:
        if kind == "DELETED":
            thread.submit(write, item, True)
        elif kind == "MODIFIED" and item["metadata"].get("deletionTimestamp"):
            thread.submit(write, item, False)

    async with client.ApiClient(settings) as connection:
        follower = Follower(
            client.CoreV1Api(connection).list_pod_for_all_namespaces,
            {"label_selector": "gpucloud.io/component"},
            what="pods",
            on_change=lambda: None,
            log=log,
            on_event=on_event,
            watch_seconds=1,
        )
        await follower.run()


if __name__ == "__main__":
    logging.basicConfig(level="ERROR", format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(*sys.argv[1:3]))
