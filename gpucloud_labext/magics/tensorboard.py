"""`%gpucloud tensorboard`: the TensorBoard of a log directory, shown in the notebook."""

from __future__ import annotations

import argparse
import os
import time
from html import escape
from pathlib import Path
from typing import Any

from ..client import Client, own_server
from ..errors import LabError
from . import show
from .command import Command, Context, Parser, Result

API = "gpucloud/api/tensorboards"
POLL_SECONDS = 0.2
# The server gives up earlier, and says why.
PATIENCE_SECONDS = 600.0


def _add_options(parser: Parser) -> None:
    parser.add_argument(
        "logdir",
        nargs="?",
        help="folder with event files, s3://bucket/path of your buckets, or job:NAME",
    )
    parser.add_argument("--height", type=int, default=800, help="of the frame, in pixels (800)")
    parser.add_argument("--list", action="store_true", help="what runs, with memory and last use")
    parser.add_argument("--stop", action="store_true", help="stop that of LOGDIR; without it, all")


def run(args: argparse.Namespace, context: Context) -> Result:
    """Start, list or stop."""
    if not 100 <= args.height <= 10_000:
        raise LabError(400, "usage", "--height is in pixels: 100 to 10000")
    if args.list and (args.stop or args.logdir):
        raise LabError(400, "usage", "--list stands alone. See: %gpucloud help tensorboard")
    server, _ = own_server()
    logdir = _for_server(args.logdir) if args.logdir else None
    if args.list:
        return _listing(_all(server))
    if args.stop:
        return _stop(server, logdir)
    if logdir is None:
        raise LabError(400, "usage", "Which log directory? For example: %gpucloud tensorboard runs")
    model = server.request("POST", API, json={"logdir": logdir})
    return _shown(_started(server, model), args.height)


def _for_server(logdir: str) -> str:
    """As the server knows it: from its root, where a notebook means its own folder."""
    if logdir.startswith("s3://"):
        return logdir
    if logdir.startswith("job:"):
        from ..jobs.job import logdir as of_job

        return of_job(logdir)
    here = os.path.normpath(Path.cwd() / Path(logdir).expanduser())
    for root in _roots():
        if Path(here).is_relative_to(root):
            return str(Path(here).relative_to(root))
    return logdir  # the server says what is wrong with it


def _roots() -> list[Path]:
    root = Path(os.environ.get("JUPYTERHUB_ROOT_DIR") or _plain_root() or Path.home())
    return [root, root.resolve()]


def _plain_root() -> str | None:
    """Of a Jupyter server without a hub."""
    if os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return None
    from jupyter_server.serverapp import list_running_servers

    parent = int(os.environ.get("JPY_PARENT_PID") or os.getppid())
    roots = [server["root_dir"] for server in list_running_servers() if server["pid"] == parent]
    return roots[0] if roots else None


def _started(server: Client, model: dict[str, Any]) -> dict[str, Any]:
    """The model of a TensorBoard that runs. Raises LabError with its last line."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while model["state"] == "starting":
        if time.monotonic() > deadline:
            raise LabError(504, "timeout", "TensorBoard is still starting; try again in a moment.")
        time.sleep(POLL_SECONDS)
        model = server.request("GET", f"{API}/{model['id']}")
    if model["state"] == "failed":
        last = model["log"][-1:]
        raise LabError(502, "tensorboard_failed", " ".join([model["reason"], *last]))
    return model


def _shown(model: dict[str, Any], height: int) -> Result:
    url, logdir = escape(model["url"]), escape(model["logdir"])
    html = (
        f'<p>TensorBoard of <code>{logdir}</code>: <a href="{url}" target="_blank">open it in a '
        f'tab</a></p><iframe src="{url}" title="TensorBoard of {logdir}" '
        f'style="width: 100%; height: {height}px; border: 1px solid #8888"></iframe>'
    )
    return Result(f"TensorBoard of {model['logdir']}: {model['url']}", html, model)


def _all(server: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.request("GET", API)["tensorboards"]
    return found


def _stop(server: Client, logdir: str | None) -> Result:
    chosen = [m for m in _all(server) if logdir is None or _is_of(m, logdir)]
    if logdir is not None and not chosen:
        raise LabError(404, "no_such_tensorboard", f"No TensorBoard runs for {logdir}.")
    for model in chosen:
        server.request("DELETE", f"{API}/{model['id']}")
    return Result(
        "\n".join(f"Stopped: {model['logdir']}" for model in chosen) or "There is none.",
        data=chosen,
    )


def _is_of(model: dict[str, Any], logdir: str) -> bool:
    return str(model["logdir"]).rstrip("/") == logdir.rstrip("/") or model["id"] == logdir


def _listing(models: list[dict[str, Any]]) -> Result:
    if not models:
        return Result("No TensorBoard runs. Start one: %gpucloud tensorboard LOGDIR", data=[])
    head = ("log directory", "state", "memory", "last looked at (UTC)")
    rows = [(m["logdir"], *_facts(m)) for m in models]
    items = [
        f'<li><a href="{escape(m["url"])}" target="_blank">{escape(m["logdir"])}</a>: '
        f"{escape(', '.join(_facts(m)))}</li>"
        for m in models
    ]
    html = f"<p>TensorBoards (state, memory, last looked at):</p><ul>{''.join(items)}</ul>"
    return Result(show.text_table([head, *rows]), html, models)


def _facts(model: dict[str, Any]) -> tuple[str, str, str]:
    used = model["last_used"].partition("+")[0].replace("T", " ")
    return model["state"], show.size(model["memory_bytes"]), used


def _folders(start: str) -> list[str]:
    """What a folder's name that begins with ``start`` may become."""
    name = start.rpartition("/")[2]
    folder = Path(start.removesuffix(name) or ".")
    try:
        found = [p for p in folder.iterdir() if p.name.startswith(name) and p.is_dir()]
    except OSError:
        return []
    lead = start.removesuffix(name)
    return sorted(f"{lead}{path.name}/" for path in found)[:50]


COMMAND = Command(
    "tensorboard",
    "The TensorBoard of a log directory, here in the notebook; list and stop them",
    run,
    _add_options,
    complete=_folders,
    examples=("%gpucloud tensorboard runs", "%gpucloud tensorboard --list"),
)
