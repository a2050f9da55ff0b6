"""Run the API server alone: `python -m gpucloud_spawner.localcluster.apiserver --data DIR`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from .server import APIServer


async def serve(data: Path, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with APIServer(data, host, port) as server:
        print(
            f"the API server is ready at {server.url}; kubeconfig: {server.kubeconfig}", flush=True
        )
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Kubernetes API server of the local cluster")
    parser.add_argument("--data", type=Path, required=True, help="directory of its state")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=0, help="0: the port of the last start, or a free one"
    )
    parser.add_argument("--log-level", default="info")
    args = parser.parse_args()
    logging.basicConfig(
        level=args.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    asyncio.run(serve(args.data, args.host, args.port))


if __name__ == "__main__":
    main()
