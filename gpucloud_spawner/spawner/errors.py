"""Why a start is refused or given up, in words for its owner.

JupyterHub counts a SpawnException as a handled refusal: never towards `consecutive_failure_limit`.
"""

from __future__ import annotations

from html import escape

from jupyterhub.spawner import SpawnException


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
