"""Every path of the service in one table: handler, methods, scopes, parameters.

A request that is not in it is answered with 404 or 405; the tests walk it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tornado.web import RequestHandler, URLSpec

from ..metering.idle import GROUPS as CAPACITY_GROUPS
from ..metering.prices import KINDS as PRICE_KINDS
from ..metering.query import FILTERS, GROUPS, MAX_PAGE
from ..model.job_record import STATES
from .api import applications, cluster, jobs, money, s3, usage
from .auth import Need
from .contract import Field, Verb
from .handler import LoginCallback, NotFound, Static
from .pages import UsagePage

if TYPE_CHECKING:
    from .app import Portal

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Route:
    """A path below the service's prefix; `{name}` in it is one part of a path, which may be empty
    (the default server has no name) and which the handler's methods get as an argument."""

    path: str
    handler: type[RequestHandler]
    verbs: Mapping[str, Verb]
    is_page: bool = False
    options: Mapping[str, Any] | None = None

    @property
    def pattern(self) -> str:
        """As a regular expression, which tornado matches in full; a folder takes what is in it."""
        parts = re.split(r"\{(\w+)\}", self.path)  # texts and names in turns
        text = "".join(
            f"(?P<{part}>[^/]*)" if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
        return text + ("(.*)" if self.path.endswith("/") else "")


MONTH = Field("month", "calendar month (UTC); not with start and end", example="2026-11")
WINDOW = (
    Field("start", "RFC 3339; without times: this month", example="2026-11-01T00:00:00Z"),
    Field("end", "RFC 3339, exclusive", example="2026-12-01T00:00:00Z"),
    MONTH,
)
FILTER = tuple(Field(name, f"only this {name}; may be repeated", many=True) for name in FILTERS)
FORMAT = Field("format", "json (default) or csv", allowed=("json", "csv"))
PAGE_SIZE = Field("page_size", f"1 to {MAX_PAGE}; default 100", "integer", example="100")
OF_USER = Field("user", "whose; default: your own. Of others: for admins")
REASON = Field("reason", "why, for the records", required=True, example="agreed with finance")

JOB_BODY = (
    Field(
        "idempotency_key",
        "new for every job: repeating a request launches nothing twice",
        required=True,
    ),
    Field("command", "program and arguments", "array", required=True, example='["python", "a.py"]'),
    Field("code", "SHA-256 of the manifest of the uploaded code", required=True),
    Field("name", "a-z, 0-9, hyphens; default: from the script's name", example="mnist"),
    Field("replicas", "numbers of chief, worker, ps, evaluator", "object", example='{"worker": 2}'),
    Field("gpus", "of each chief and worker; default: the profile's", "integer"),
    Field("ps_gpus", "of each parameter server; default 0", "integer"),
    Field("profile", "default: the first that you may use", example="tensorflow"),
    Field("image", "key of one of the profile's images; default: its first"),
    Field("team", "which is billed; default: the first of yours"),
    Field("cpu", "cores of each replica, within the profile's limit", example="2"),
    Field("memory", "of each replica, within the profile's limit", example="4G"),
    Field("env", "variables", "object", example='{"SEED": "1"}'),
    Field("timeout_seconds", "after which it is ended, its waiting included", "integer"),
    Field(
        "gang_seconds",
        "after which it gives up machines that it holds while others lack",
        "integer",
    ),
    Field("retries", "how often each replica is started again when it fails", "integer"),
)

ROUTES: tuple[Route, ...] = (
    Route("", UsagePage, {"GET": Verb(Need.ACCESS, "Page", (MONTH,), answers="text/html")}, True),
    Route(
        "oauth_callback",
        LoginCallback,
        {"GET": Verb(Need.NOTHING, "The hub sends people back here", answers="text/html")},
        True,
    ),
    Route(
        "static/",
        Static,
        {"GET": Verb(Need.NOTHING, "Style sheets", answers="text/css")},
        True,
        {"path": str(STATIC)},
    ),
    Route("health", cluster.Health, {"GET": Verb(Need.NOTHING, "Whether the service works")}),
    Route(
        "metrics",
        cluster.Metrics,
        {"GET": Verb(Need.METRICS, "For Prometheus", answers="text/plain")},
    ),
    Route("api/openapi.json", cluster.OpenAPI, {"GET": Verb(Need.ACCESS, "This document")}),
    Route(
        "api/gpus",
        cluster.GPUs,
        {"GET": Verb(Need.ACCESS, "GPUs per node and product now; who has them: for admins")},
    ),
    Route(
        "api/usage",
        usage.Usage,
        {
            "GET": Verb(
                Need.ACCESS,
                "GPU-seconds, GiB-seconds and cost in a window, grouped. Your own; of your teams "
                "for team admins; of all for admins",
                (
                    Field(
                        "group_by",
                        f"comma-separated, of: {', '.join(GROUPS)}",
                        example="user,day",
                    ),
                    *WINDOW,
                    *FILTER,
                    FORMAT,
                ),
            )
        },
    ),
    Route(
        "api/usage/intervals",
        usage.Intervals,
        {
            "GET": Verb(
                Need.ACCESS,
                "The single lines behind a statement, in pages",
                (
                    *WINDOW,
                    *FILTER,
                    PAGE_SIZE,
                    Field("cursor", "`next` of the page before"),
                    FORMAT,
                ),
            )
        },
    ),
    Route(
        "api/usage/capacity",
        usage.Capacity,
        {
            "GET": Verb(
                Need.ADMIN,
                "Capacity, used and idle GPU-seconds: used + idle = capacity",
                (
                    Field("group_by", f"comma-separated, of: {', '.join(CAPACITY_GROUPS)}, day"),
                    *WINDOW,
                ),
            )
        },
    ),
    Route(
        "api/applications",
        applications.Applications,
        {
            "GET": Verb(
                Need.ACCESS,
                "Applications with their states and home volumes",
                (
                    OF_USER,
                    Field("scope", "own (default); all: for admins", allowed=("own", "all")),
                ),
            )
        },
    ),
    Route(
        "api/applications/{name}",
        applications.ApplicationDetail,
        {
            "GET": Verb(
                Need.ACCESS,
                "One application: state, size and used bytes of its home volume, bucket usage. "
                "The default server has an empty name",
                (OF_USER,),
            )
        },
    ),
    Route(
        "api/s3",
        s3.Data,
        {
            "GET": Verb(
                Need.ACCESS, "Bucket, endpoint, team buckets, usage and quota in S3", (OF_USER,)
            )
        },
    ),
    Route(
        "api/s3/credentials",
        s3.Credentials,
        {
            "POST": Verb(
                Need.ACCESS,
                "Make a new S3 key; the old one is dead at once, running servers get the new one. "
                "The secret is told this once, and only to its owner",
                body=(OF_USER,),
                status=201,
            )
        },
    ),
    Route(
        "api/jobs",
        jobs.Jobs,
        {
            "GET": Verb(
                Need.ACCESS,
                "Jobs, the newest first",
                (
                    Field("state", "only these", many=True, allowed=STATES),
                    Field("user", "whose; default: your own, for administrators everybody's"),
                    Field("team", "only those that are billed to it"),
                    PAGE_SIZE,
                    Field("cursor", "`next` of the page before"),
                ),
            ),
            "POST": Verb(
                Need.ACCESS,
                "Launch a job. A request that is repeated with its key is answered with the job of "
                "the first (200)",
                body=JOB_BODY,
                status=201,
            ),
        },
    ),
    Route(
        "api/jobs/{id}",
        jobs.Job,
        {
            "GET": Verb(Need.ACCESS, "One job"),
            "DELETE": Verb(Need.ACCESS, "Stop a job; its record stays"),
        },
    ),
    Route(
        "api/jobs/{id}/logs",
        jobs.Logs,
        {
            "GET": Verb(
                Need.ACCESS,
                "What its replicas write. 410, with the place in the bucket, once they are gone",
                (
                    Field("replica", "only this one; without, each line has the replica's name"),
                    Field("follow", "1: until the job is over", allowed=("0", "1")),
                    Field("tail", "only so many last lines of each replica", "integer"),
                ),
                answers="text/plain",
            )
        },
    ),
    Route(
        "api/prices",
        money.Prices,
        {
            "GET": Verb(Need.ACCESS, "The price list; who entered a line and why: for admins"),
            "POST": Verb(
                Need.ADMIN,
                "Enter a price that holds from now or later; what was used keeps its price",
                body=(
                    Field("kind", "default gpu", allowed=PRICE_KINDS),
                    Field("profile", "slug; empty: any"),
                    Field("product", "GPU product; empty: any"),
                    Field(
                        "price",
                        "per GPU-hour or GiB-hour; null: the site file's again",
                        required=True,
                        nullable=True,
                        example="1.50",
                    ),
                    Field("valid_from", "RFC 3339; default now", example="2026-12-01T00:00:00Z"),
                    REASON,
                ),
                status=201,
            ),
        },
    ),
    Route(
        "api/adjustments",
        money.Adjustments,
        {
            "GET": Verb(Need.ADMIN, "The latest corrections, newest first", (PAGE_SIZE,)),
            "POST": Verb(
                Need.ADMIN,
                "Enter a correction of an interval, a user or a team; append-only",
                body=(
                    Field("interval_uid", "of the interval that it is about"),
                    Field("user", "whose it is, where it is about no interval"),
                    Field("team", "whose it is, where it is about no interval"),
                    Field("app", "application, where it is about no interval"),
                    Field("gpu_seconds", "to add; negative: to take off", "integer"),
                    Field("money", "to add; negative: to take off", example="-1.50"),
                    Field("effective_at", "RFC 3339: the day and month that it counts in"),
                    REASON,
                ),
                status=201,
            ),
        },
    ),
    Route(
        "api/budgets",
        money.BudgetList,
        {
            "GET": Verb(
                Need.ACCESS,
                "Budgets of this month: used, limit, renewal",
                (
                    Field(
                        "scope",
                        "own (default): you and your teams; team: teams that you administrate; "
                        "all: for admins",
                        allowed=("own", "team", "all"),
                    ),
                ),
            )
        },
    ),
    Route(
        "api/budgets/check",
        money.BudgetCheck,
        {
            "GET": Verb(
                Need.ACCESS,
                "Whether a server with so many GPUs may start",
                (
                    Field("user", "default: you"),
                    Field("team", "the team that is billed; empty: none"),
                    Field("gpus", "default 1", "integer"),
                ),
            )
        },
    ),
)
NOT_FOUND = Route("", NotFound, {})


def mount(portal: Portal) -> list[URLSpec]:
    """The table as tornado's rules, below the service's prefix."""
    return [
        URLSpec(
            re.escape(portal.hub.prefix) + route.pattern,
            route.handler,
            {"portal": portal, "route": route, **(route.options or {})},
        )
        for route in ROUTES
    ]
