"""Every path of the extension in one table; the OpenAPI document is made from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tornado.web import RequestHandler

if TYPE_CHECKING:
    from ..extension import GPUCloudExtension

PREFIX = "gpucloud"


@dataclass(frozen=True)
class Route:
    """A path below `<base_url>/gpucloud/`; `{name}` in it stands for one path part, which the
    handler's methods get as an argument, `{name...}` for the rest of the path."""

    path: str
    handler: type[RequestHandler]
    verbs: Mapping[str, str]  # method: one line on what it does
    body: Mapping[str, str] | None = None  # field of a POST's JSON: what it means
    query: Mapping[str, str] | None = None  # parameter of a GET's URL: what it means
    answers: str = "application/json"

    @property
    def pattern(self) -> str:
        """As a regular expression."""
        parts = re.split(r"(\{\w+(?:\.\.\.)?\})", self.path)
        return "".join(_part(part) for part in parts)


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part.strip("{}.")
    return f"(?P<{name}>.*)" if part.endswith("...}") else f"(?P<{name}>[^/]+)"


def _routes() -> tuple[Route, ...]:
    # not at the top of the module: a handler may look at the table
    from ..tensorboard import proxy
    from . import gpus, jobs, openapi, s3, status, tensorboards, usage

    return (
        Route(
            "api/status",
            status.Status,
            {"GET": "What this server is, since when it runs and what it has cost"},
        ),
        Route("api/activity", status.ActivityHandler, {"GET": "Whether it works or is used"}),
        Route("api/gpus", gpus.GPUs, {"GET": "The GPUs of this server: memory, load, processes"}),
        Route("api/usage", usage.Usage, {"GET": "Own usage and cost"}, query=usage.QUERY),
        Route("api/s3", s3.S3, {"GET": "Own bucket, endpoint, usage and quota"}),
        Route(
            "api/s3/credentials",
            s3.Credentials,
            {"POST": "Make a new S3 key; the old one is dead at once"},
            body={},
        ),
        Route(
            "api/jobs",
            jobs.Jobs,
            {"GET": "Own jobs", "POST": "Launch a job from a script of the home"},
            body=jobs.LAUNCH_BODY,
            query=jobs.LIST_QUERY,
        ),
        Route(
            "api/jobs/{job}",
            jobs.Job,
            {"GET": "A job and its replicas", "DELETE": "Stop a job"},
        ),
        Route(
            "api/jobs/{job}/logs",
            jobs.JobLogs,
            {"GET": "What a job's replicas print"},
            query=jobs.LOG_QUERY,
            answers="text/plain",
        ),
        Route(
            "api/tensorboards",
            tensorboards.TensorBoardsHandler,
            {"GET": "The TensorBoards of this server", "POST": "The TensorBoard of a directory"},
            body={"logdir": "A folder of the home, or s3://bucket/path in a bucket of one's own"},
        ),
        Route(
            "api/tensorboards/{id}",
            tensorboards.TensorBoardHandler,
            {"GET": "A TensorBoard: its state, memory and last use", "DELETE": "Stop it"},
        ),
        Route(
            "tensorboard/{id}",
            proxy.AddSlashHandler,
            {"GET": "To the page of a TensorBoard"},
            answers="text/html",
        ),
        Route(
            "tensorboard/{id}/{path...}",
            proxy.TensorBoardHandler,
            {"GET": "A TensorBoard", "POST": "A longer question to it"},
            answers="text/html",
        ),
        Route("api/openapi.json", openapi.OpenAPI, {"GET": "This document"}),
    )


ROUTES = _routes()


def mount(extension: GPUCloudExtension) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The table as tornado's rules; jupyter-server puts its base URL before them."""
    return [
        (rf"/{PREFIX}/{route.pattern}", route.handler, {"extension": extension}) for route in ROUTES
    ]
