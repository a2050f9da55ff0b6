"""The service's metering as a process of its own, to be killed: `python -m ... KUBECONFIG URL`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from kubernetes_asyncio import client, config

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.meter import Meter, MeterSettings

FAST = MeterSettings(
    audit_seconds=2.0,
    settle_seconds=2.0,
    inbox_seconds=0.2,
    lease_seconds=2,
    watch_seconds=1,
    retry_seconds=0.2,
)


async def serve(kubeconfig: str, url: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = client.Configuration()
    await config.load_kube_config(kubeconfig, client_configuration=settings)
    engine = db.make_engine(url)
    async with client.ApiClient(settings) as connection:
        meter = Meter(engine, client.CoreV1Api(connection), FAST)
        await meter.start()
        print("started", flush=True)
        await stop.wait()
        await meter.stop()
    engine.dispose()


if __name__ == "__main__":
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(*sys.argv[1:3]))
