"""`gpucloud s3 usage|rotate|revoke|purge USER`: for administrators on the hub's machine."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio import client
from kubernetes_asyncio.config import ConfigException, load_config
from traitlets.config import Config, PyFileConfigLoader

from .keys import S3Keys, as_data
from .s3 import S3Error, S3Provider

ACTIONS = {
    "usage": "print what the user's bucket holds",
    "rotate": "make a new key and end the present one; running servers get the new one",
    "revoke": "end the user's keys; the data stay",
    "purge": "end the user's keys and DELETE all data in the user's bucket",
}


def add_commands(commands: Any) -> None:
    """Add the sub-commands to argparse's sub-parsers; they set ``handler``."""
    s3 = commands.add_parser("s3", help="users' S3 keys and data")
    actions = s3.add_subparsers(dest="action", required=True)
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("user", help="name of the user in the hub")
        action.add_argument(
            "--config",
            type=Path,
            default=Path("hub_config/jupyterhub_config.py"),
            help="JupyterHub configuration (default: %(default)s)",
        )
        if name == "purge":
            action.add_argument("--yes", action="store_true", help="do not ask")
        action.set_defaults(handler=run_s3)


def run_s3(arguments: argparse.Namespace) -> int:
    """`gpucloud s3 ...`; returns the exit code."""
    if arguments.action == "purge" and not arguments.yes:
        question = f"Delete all S3 data of {arguments.user!r} for good? Type the name to go on: "
        if input(question) != arguments.user:
            print("Nothing was deleted.", file=sys.stderr)
            return 1
    try:
        print(asyncio.run(_act(arguments.action, arguments.user, arguments.config)))
    except (S3Error, ConfigException) as error:
        print(f"gpucloud: {error}", file=sys.stderr)
    except client.ApiException as error:  # not its text, which has the request's answer
        print(f"gpucloud: Kubernetes refused ({error.status} {error.reason})", file=sys.stderr)
    except (aiohttp.ClientError, TimeoutError) as error:
        print(f"gpucloud: Kubernetes does not answer ({type(error).__name__})", file=sys.stderr)
    else:
        return 0
    return 1


async def _act(action: str, user: str, config_file: Path) -> str:
    config = _read_config(config_file)
    provider = config.GPUCloudSpawner.get("s3_provider")
    if not isinstance(provider, S3Provider):
        raise S3Error(f"{config_file} sets no c.GPUCloudSpawner.s3_provider.", "s3_off")
    if action == "usage":
        return json.dumps(as_data(await provider.usage(user)))
    settings = client.Configuration()
    await load_config(client_configuration=settings, config_file=_local_kubeconfig())
    async with client.ApiClient(settings) as connection:
        namespace = config.GPUCloudSpawner.get("namespace") or "default"
        keys = S3Keys(provider, client.CoreV1Api(connection), namespace)
        if action == "rotate":
            # only the name of the key: a terminal's text is kept in too many places
            return f"The key of {user!r} is {(await keys.rotate(user)).access_key} now."
        if action == "revoke":
            await keys.revoke(user)
            return f"{user!r} has no S3 keys any more; the data are kept."
        await keys.purge(user)
        return f"The S3 data of {user!r} are deleted."


def _read_config(file: Path) -> Config:
    if not file.is_file():
        raise S3Error(f"There is no {file}: give --config.", "s3_misconfigured")
    if _local_kubeconfig():
        # what `gpucloud run` tells its children; with another S3 or port, set it here as there
        os.environ.setdefault("GPUCLOUD_RUN", "local")
        os.environ.setdefault("GPUCLOUD_S3", "rclone")
    loaded: Config = PyFileConfigLoader(file.name, path=str(file.parent.absolute())).load_config()
    return loaded


def _local_kubeconfig() -> str | None:
    """That of `gpucloud run` where there is one; else the usual places."""
    local = Path(os.environ.get("GPUCLOUD_DATA") or ".gpucloud") / "kubeconfig"
    if (os.environ.get("GPUCLOUD_CLUSTER") or "local") == "local" and local.is_file():
        return str(local)
    return None
