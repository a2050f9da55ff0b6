"""`python -m gpucloud_spawner.s3server`: serve S3 on loopback until ended."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from .ceph import serve as serve_ceph
from .files import CannotServe
from .files import serve as serve_files


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; the rclone kind becomes rclone and does not return."""
    parser = argparse.ArgumentParser(prog="python -m gpucloud_spawner.s3server")
    parser.add_argument("--data", type=Path, required=True, help="folder of all its state")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--kind", choices=["rclone", "ceph"], default="rclone")
    parser.add_argument(
        "--mon-port", type=int, help="ceph: port of its monitor, fixed by the first start"
    )
    parser.add_argument(
        "--store",
        choices=["bluestore", "memstore"],
        default="bluestore",
        help="ceph: memstore is for tests; it keeps all data in memory",
    )
    arguments = parser.parse_args(argv)
    data = arguments.data.absolute()
    try:
        if arguments.kind == "rclone":
            serve_files(data, arguments.port)
        else:
            mon_port = arguments.mon_port or arguments.port + 1
            asyncio.run(serve_ceph(data, arguments.port, mon_port, arguments.store))
    except CannotServe as error:
        print(f"s3server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
