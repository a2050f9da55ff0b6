"""Why a start is refused or given up, in words for its owner.

JupyterHub counts a SpawnException as a handled refusal: never towards `consecutive_failure_limit`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import aiohttp
from jupyterhub.spawner import SpawnException
from kubernetes_asyncio.client import ApiException


class StartRefused(SpawnException):
    """A start that will not be; ``message`` is for the user, ``reason`` a stable slug for metrics.

    ``log`` is what the server printed last, where it got that far.
    """

    def __init__(self, message: str, *, reason: str, status_code: int = 400, log: str = "") -> None:
        self.log = log
        super().__init__(
            f"{message}\nIts last lines:\n{log}" if log else message,
            reason=reason,
            log_message=message,
            status_code=status_code,
        )

    # The two names under which the hub looks for words on its pages and in its progress events.

    @property
    def jupyterhub_message(self) -> str:
        return str(self.message)

    @property
    def jupyterhub_html_message(self) -> str | None:
        if not self.log:
            return None
        title, _, _ = self.jupyterhub_message.partition("\nIts last lines:\n")
        return f"{escape(title)}<pre class='text-start small mt-3'>{escape(self.log)}</pre>"


@contextmanager
def in_words() -> Iterator[None]:
    """Turn what the Kubernetes API answers, or does not answer, into a StartRefused.

    A cluster that is full, down or strict is no failure of the hub.
    """
    try:
        yield
    except ApiException as error:
        raise _refusal_of(error) from error
    except (TimeoutError, aiohttp.ClientError) as error:
        raise StartRefused(
            "The cluster does not answer. Try again in a few minutes.",
            reason="api-unreachable",
            status_code=503,
        ) from error


def _refusal_of(error: ApiException) -> StartRefused:
    message = _message_of(error)
    if error.status == 403 and "exceeded quota" in message:
        return StartRefused(
            f"Your team's share of the cluster is used up. Kubernetes says: {message}",
            reason="quota",
            status_code=403,
        )
    return StartRefused(
        f"Kubernetes refused the start; an administrator can help. It says: {message}",
        reason="api-refused",
        status_code=500,
    )


def _message_of(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"
