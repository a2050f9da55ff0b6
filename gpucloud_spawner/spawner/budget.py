"""May this start use GPUs? The hub's question to the service, with the new server's own token; and
how the owner's budgets stand, for the form.

The service knows the ledger and the budgets; here is only what follows from its answer, or from
none: a start must not hang on a service that is away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import aiohttp
from prometheus_client import Counter

from ..metering.budgets import NOTICE_FRACTION
from .errors import StartRefused
from .service import ACCESS_SCOPE, SERVICE

if TYPE_CHECKING:
    from .spawner import GPUCloudSpawner

ANSWER_SECONDS = 2.0
FORM_SECONDS = 1.0
TOKEN_SECONDS = 3600

UNANSWERED = Counter(
    "gpucloud_budget_unanswered",
    "Starts whose budget the service could not be asked about in time, by what was done",
    ["decision"],
)


class _Unanswered(Exception):
    """Why there is no answer."""


async def check_budget(spawner: GPUCloudSpawner, gpus: int, team: str) -> str:
    """Words of warning for the owner, or "". Raises StartRefused where a budget is used up.

    A start without GPUs is not asked about.
    """
    if gpus == 0:
        return ""
    url = _service_url(spawner)
    if url is None:  # a hub without the service has no budgets
        if spawner.budget_unreachable == "deny":
            raise _refusal()
        return ""
    params = {"user": spawner.user.name, "team": team, "gpus": str(gpus)}
    try:
        answer = await _ask(f"{url}/check", spawner.api_token, params, ANSWER_SECONDS)
        if answer.get("decision") not in ("allowed", "notice", "refused"):
            raise _Unanswered("an answer that is none")
    except _Unanswered as why:
        decision = str(spawner.budget_unreachable)
        UNANSWERED.labels(decision).inc()
        spawner.log.error(
            "The budget of %s is not known (%s): %s", spawner._log_name, why, decision
        )
        if decision == "deny":
            raise _refusal() from why
        return ""
    message = str(answer.get("message", ""))
    if answer["decision"] == "refused":
        raise StartRefused(message, reason="budget", status_code=403)
    return message


def _refusal() -> StartRefused:
    return StartRefused(
        "Your budget cannot be looked up at the moment, and servers with GPUs do not start without "
        "it. Try again in a minute, or start one without GPUs.",
        reason="budget-unreachable",
        status_code=503,
    )


def _service_url(spawner: GPUCloudSpawner) -> str | None:
    services: Any = getattr(spawner.user, "settings", {}).get("services") or {}
    service = services.get(SERVICE)
    if service is None or service.server is None:
        return None
    return f"{service.server.url}api/budgets"


async def _ask(url: str, token: str, params: dict[str, str], seconds: float) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=seconds)
    headers = {"Authorization": f"token {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
            session.get(url, params=params) as answer,
        ):
            body = await answer.json()
            if answer.status != 200:
                raise _Unanswered(f"{answer.status}: {str(body)[:300]}")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise _Unanswered(f"{type(error).__name__}: {error}") from error
    if not isinstance(body, dict):
        raise _Unanswered("an answer that is none")
    return body


async def budget_words(spawner: GPUCloudSpawner) -> str:
    """How the owner's budgets and those of his teams stand where they are nearly used up; for the
    form, which does not wait long for it. "" where there is nothing to say."""
    url = _service_url(spawner)
    if url is None:
        return ""
    try:
        answer = await _ask(url, _form_token(spawner), {"scope": "own"}, FORM_SECONDS)
        budgets = [b for b in answer["budgets"] if float(b["fraction"]) >= NOTICE_FRACTION]
        return " ".join(str(b["words"]) for b in budgets)
    except (_Unanswered, KeyError, TypeError, ValueError) as why:
        spawner.log.warning("The form of %s is without budgets: %s", spawner._log_name, why)
        return ""


def _form_token(spawner: GPUCloudSpawner) -> str:
    """A token of the owner's that may ask the service and nothing else, made anew now and then."""
    token, until = spawner._form_token
    if time.monotonic() > until:
        token = spawner.user.new_api_token(
            expires_in=TOKEN_SECONDS, scopes=[ACCESS_SCOPE], note="The form asks for budgets"
        )
        spawner._form_token = (token, time.monotonic() + TOKEN_SECONDS / 2)
    return token
