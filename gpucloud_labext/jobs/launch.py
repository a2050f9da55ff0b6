"""`gpucloud_labext.run(...)`: the code into the bucket, the job to the service.

A launch is repeated until the service has answered, always with the same key, so that a hub that
restarts meanwhile neither loses a job nor starts two.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..client import Client, service
from ..errors import LabError
from .capture import MAX_BYTES, Captured, capture
from .job import Job
from .manifest import Manifest
from .packages import installed_by_user
from .store import NoStore, Store
from .upload import Uploaded, upload

CELL = "gpucloud_cell"
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", re.ASCII)
_UNITS = (86400, 3600, 60, 1)
# Seconds between attempts while the service is away.
_WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_AWAY = {"service_unavailable", "bad_answer"}


@dataclass
class Launch:
    """What is to be run, and how. None: as the profile, the notebook or the site says."""

    script: str = ""
    args: Sequence[str] = ()
    cell: str | None = None  # the code itself, instead of a script
    directory: Path | None = None  # what travels; None: the working directory
    workers: int = 1
    ps: int = 0
    chief: bool | None = None  # None: where there are parameter servers
    evaluator: bool = False
    gpus: int | None = None
    ps_gpus: int = 0
    profile: str | None = None
    image: str | None = None
    team: str | None = None
    cpu: str | None = None
    memory: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | str | None = None
    gang_timeout: float | str | None = None
    retries: int | None = None
    name: str | None = None
    packages: bool = True
    without_packages: Iterable[str] = ()
    max_code_bytes: int = MAX_BYTES


def run(script: str = "", *args: str, **options: Any) -> Job:
    """Run ``script`` of the working directory as a job, and return it at once.

    ``options`` are the fields of `Launch`: ``workers=2, ps=1, gpus=1, env={"LR": "0.1"}``. Raises
    LabError with what is wrong and what is allowed.
    """
    return launch(Launch(script=script, args=[str(word) for word in args], **options))


def launch(wanted: Launch, say: Callable[[str], None] = lambda text: None) -> Job:
    """As `run`; ``say`` is told what happens before there is a job."""
    client = service()
    root = (wanted.directory or Path.cwd()).resolve()
    try:
        store = Store.of_environment()
    except NoStore as error:
        raise LabError(503, "no_bucket", str(error)) from error
    command = _command(wanted, root)
    body = _body(wanted, command)
    captured = capture(root, wanted.max_code_bytes)
    if wanted.cell is not None:
        captured = captured.with_file(command[-1 - len(wanted.args)], wanted.cell.encode())
    else:
        _check_travels(_script(wanted, root), captured)
    sent = _upload(wanted, root, store, captured)
    say(_about(sent, captured))
    body["code"] = sent.sha256
    return Job(_ask(client, body, say), client)


def _upload(wanted: Launch, root: Path, store: Store, captured: Captured) -> Uploaded:
    if wanted.packages:
        packages = installed_by_user(root, wanted.without_packages)
        manifest = Manifest(captured.files, packages.requirements, packages.import_paths)
    else:
        manifest = Manifest(captured.files)
    return upload(store, captured, manifest)


def _about(sent: Uploaded, captured: Captured) -> str:
    what = f"{sent.files} files, {sent.sent_files} of them sent ({sent.sent_bytes:,} bytes)"
    skipped = f"; left out, no files: {', '.join(captured.skipped)}" if captured.skipped else ""
    return f"code: {what}{skipped}"


def _command(wanted: Launch, root: Path) -> list[str]:
    """What each replica starts. Raises LabError."""
    if wanted.cell is not None:
        return [*_interpreter(wanted.cell), *wanted.args]
    inside = _script(wanted, root)
    path = root / inside
    if path.suffix in (".ipynb", ".ipy"):
        return ["python", "-m", "IPython", inside, "--", *wanted.args]
    if path.suffix == ".py":
        return ["python", inside, *wanted.args]
    if os.access(path, os.X_OK):
        return [f"./{inside}", *wanted.args]
    raise LabError(
        400, "no_script", f"{inside} is neither Python (.py, .ipynb) nor an executable file."
    )


def _script(wanted: Launch, root: Path) -> str:
    """The script's path below ``root``. Raises LabError."""
    if not wanted.script:
        raise LabError(400, "usage", "Which script? For example: %gpucloud run train.py")
    path = Path(os.path.normpath(root / wanted.script))
    if not path.is_relative_to(root):
        raise LabError(
            400, "outside", f"{wanted.script} is not in {root}, which is what travels with the job."
        )
    if not path.is_file():
        raise LabError(404, "no_script", f"There is no file {path}.")
    return path.relative_to(root).as_posix()


def _check_travels(script: str, captured: Captured) -> None:
    """Refuse a job whose script would not be there. It may be reached through a linked folder."""
    places = {script, *map(str, PurePosixPath(script).parents)}
    if not any(file.path in places for file in captured.files):
        raise LabError(
            400,
            "script_ignored",
            f"{script} is left out by a .gitignore or .gpucloudignore: the job would not have it. "
            f"A line !{script} in .gpucloudignore takes it along, unless its folder is ignored.",
        )


def _interpreter(cell: str) -> list[str]:
    """A cell with magics or shell commands needs IPython."""
    plain = True
    try:
        compile(cell, CELL, "exec", dont_inherit=True)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager

        plain = TransformerManager().transform_cell(cell).strip() == cell.strip()
    if plain:
        return ["python", f"{CELL}.py"]
    return ["python", "-m", "IPython", f"{CELL}.ipy"]


def _body(wanted: Launch, command: Sequence[str]) -> dict[str, Any]:
    """The request, without the code. The service checks it; what it cannot know is done here."""
    chief = wanted.chief if wanted.chief is not None else wanted.ps > 0
    replicas = {"chief": int(chief), "worker": wanted.workers, "ps": wanted.ps}
    own = os.environ.get("GPUCLOUD_PROFILE")
    body = {
        "idempotency_key": uuid.uuid4().hex,
        "command": list(command),
        "replicas": {**replicas, "evaluator": int(wanted.evaluator)},
        "gpus": wanted.gpus,
        "ps_gpus": wanted.ps_gpus or None,
        "profile": wanted.profile or own,
        "image": wanted.image,
        # the team that pays for the notebook pays for its jobs
        "team": wanted.team if wanted.team is not None else os.environ.get("GPUCLOUD_TEAM") or None,
        "cpu": wanted.cpu,
        "memory": wanted.memory,
        "env": dict(wanted.env) or None,
        "timeout_seconds": seconds(wanted.timeout),
        "gang_seconds": seconds(wanted.gang_timeout),
        "retries": wanted.retries,
        "name": wanted.name or ("cell" if wanted.cell is not None else None),
    }
    return {key: value for key, value in body.items() if value is not None}


def seconds(value: float | str | None) -> int | None:
    """``8h``, ``1h30m``, ``90`` (seconds). Raises LabError."""
    if value is None or isinstance(value, int | float):
        return None if value is None else int(value)
    match = _DURATION.fullmatch(value.strip().lower())
    if not value.strip() or match is None:
        raise LabError(
            400, "bad_value", f"{value!r} is no time: write 8h, 1h30m, 45m, or 90 for seconds."
        )
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS, strict=True))


def _ask(client: Client, body: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    for wait in (*_WAITS, None):
        try:
            model: dict[str, Any] = client.request("POST", "api/jobs", json=body)
            return model
        except LabError as error:
            if wait is None or not _is_away(error):
                raise
            say("the service does not answer; trying again")
            time.sleep(wait)
    raise AssertionError("not reached")


def _is_away(error: LabError) -> bool:
    """Whether that was no answer of the service's: nobody's, or that of the proxy before it."""
    # a 503 of the service's own has a code of its own
    is_proxys = error.status == 503 and error.code == "refused"
    return is_proxys or error.code in _AWAY or error.status in (502, 504)
