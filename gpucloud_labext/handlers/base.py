"""The base of every handler: login, a declared table of verbs, JSON in and out, errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from jupyter_core.utils import ensure_async
from jupyter_server.base.handlers import APIHandler
from tornado.web import authenticated

from ..errors import LabError
from .errors import ErrorsOfGPUCloud

if TYPE_CHECKING:
    from ..extension import GPUCloudExtension

MAX_BODY_BYTES = 64 * 1024


class Handler(ErrorsOfGPUCloud, APIHandler):
    """A verb of it needs a logged-in user; all but GET need an `_xsrf` token, too.

    jupyter-server's own APIHandler checks `_xsrf` and, for `authorized` handlers, asks the
    authorizer; `prepare` here does both for every verb, so that none can forget it.
    """

    # what jupyter-server's authorizers are asked about
    auth_resource = "gpucloud"
    # jupyter-server's switch: panels that poll are no sign of a person
    _track_activity = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Jupyter looks for this mark of every verb; `prepare` has refused by then."""
        super().__init_subclass__(**kwargs)
        for verb in cls.SUPPORTED_METHODS or ():
            method = cls.__dict__.get(verb.lower())
            if method is not None:
                setattr(cls, verb.lower(), authenticated(method))

    def initialize(self, extension: GPUCloudExtension) -> None:
        self.extension = extension

    async def prepare(self) -> None:  # type: ignore[override]
        # also answers 403 without a login, and refuses foreign origins and a missing _xsrf
        await super().prepare()
        if self.current_user is None:
            raise LabError(403, "not_logged_in", "Log in, or send the server's token.")
        action = "read" if self.request.method in ("GET", "HEAD") else "write"
        allowed = self.authorizer.is_authorized(self, self.current_user, action, self.auth_resource)
        if not (await ensure_async(allowed)):
            raise LabError(403, "forbidden", "You may not do this on this server.")

    def json_body(self, allowed: dict[str, type | tuple[type, ...]]) -> dict[str, Any]:
        """The JSON object of the request, its keys and types checked. Raises LabError (400)."""
        if len(self.request.body) > MAX_BODY_BYTES:
            raise LabError(413, "too_large", f"The body may have {MAX_BODY_BYTES} bytes.")
        try:
            body = json.loads(self.request.body or b"{}")
        except (ValueError, RecursionError) as error:
            raise LabError(400, "not_json", "The body is not JSON.") from error
        if not isinstance(body, dict):
            raise LabError(400, "not_json", "The body is not a JSON object.")
        for name, value in body.items():
            if name not in allowed:
                raise LabError(
                    400,
                    "unknown_field",
                    f"There is no field {name[:80]!r}.",
                    allowed=sorted(allowed),
                )
            if not isinstance(value, allowed[name]):
                raise LabError(400, "bad_value", f"{name} is of the wrong type.", parameter=name)
        return body

    def query(self, allowed: Container[str]) -> dict[str, list[str]]:
        """The parameters of the URL, to be passed on. Raises LabError (400) for an unknown one."""
        found = {}
        for name in self.request.query_arguments:
            if name in allowed:
                found[name] = self.get_query_arguments(name)
            # JupyterLab adds the time, against caches; the rest are jupyter-server's own
            elif not name.isdecimal() and name not in ("token", "_xsrf", "no_track_activity"):
                raise LabError(400, "unknown_parameter", f"There is no parameter {name[:80]!r}.")
        return found

    def write_json(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(value, ensure_ascii=False))

    def write_refusal(self, error: LabError) -> None:
        self.write_json(error.as_data(), error.status)
