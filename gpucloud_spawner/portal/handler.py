"""The base of every handler: authentication, declared scopes, checked input, errors as JSON."""

from __future__ import annotations

import html
import http.client
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from sqlalchemy.exc import DBAPIError
from tornado.web import HTTPError, RequestHandler, StaticFileHandler

from ..metering.errors import LedgerError
from .auth import Caller, Need
from .contract import Verb, read_body, read_parameters
from .errors import PortalError, error_body

if TYPE_CHECKING:
    from .app import Portal
    from .routes import Route

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

_CODES = {401: "not_logged_in", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}


def content_security_policy(hub_host: str) -> str:
    """Nothing inline, nothing from elsewhere, in nobody's frame."""
    hub = f" {hub_host}" if hub_host else ""
    return (
        f"default-src 'none'; style-src 'self'{hub}; script-src 'self'{hub}; font-src 'self'{hub}; "
        f"img-src 'self' data:{hub}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


class SafeHeaders(RequestHandler):
    """The headers of every answer, of errors, too."""

    def set_default_headers(self) -> None:
        policy = content_security_policy(self.settings["hub_host"])
        self.set_header("Content-Security-Policy", policy)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        self.clear_header("Server")


class Handler(HubOAuthenticated, SafeHeaders):
    """Checks a request against its route's declaration before any method of it runs.

    A method that the route does not declare cannot be reached.
    """

    portal: Portal
    route: Route
    caller: Caller
    parameters: dict[str, Any]
    body: dict[str, Any]

    def initialize(self, portal: Portal, route: Route) -> None:
        self.portal = portal
        self.route = route
        self.hub_auth = portal.hub_auth

    @property
    def verb(self) -> Verb:
        verb = self.route.verbs.get(self.request.method or "")
        if verb is None:
            raise HTTPError(405)
        return verb

    async def prepare(self) -> None:
        verb = self.verb
        if verb.need is not Need.NOTHING and not await self._authenticate(verb):
            return
        given = {
            name: [value.decode("utf-8", "replace") for value in values]
            for name, values in self.request.query_arguments.items()
            if name != "_xsrf"
        }
        self.parameters = read_parameters(verb.parameters, given)
        if verb.body is not None:
            content_type = self.request.headers.get("Content-Type", "")
            self.body = read_body(verb.body, self.request.body, content_type)

    async def _authenticate(self, verb: Verb) -> bool:
        """Whether the request may go on; False where it was answered with a redirect."""
        try:
            model = await self.hub_auth.get_user(self, sync=False)
        except HTTPError as error:
            raise PortalError(
                503, "hub_unavailable", "The hub does not answer at the moment. Try again."
            ) from error
        if model is None:
            self.current_user = None
            if self.route.is_page and self.request.method == "GET":
                self.redirect(self.get_login_url())
                return False
            raise PortalError(
                401,
                "not_logged_in",
                "Send a token of the hub: Authorization: token <token>. From a page, send the "
                "cookie and its _xsrf token in X-XSRFToken.",
            )
        self.current_user = model
        if not verb.need.is_met(model.get("scopes") or ()):
            raise PortalError(
                403,
                "forbidden",
                "Your token does not carry the right to do this.",
                needs_one_of=sorted(verb.need.value),
            )
        if self.request.method not in ("GET", "HEAD"):
            self.check_xsrf_cookie()
        self.caller = Caller.from_model(model)
        return True

    def check_hub_user(self, model: dict[str, Any]) -> dict[str, Any]:
        """JupyterHub's hook, for what may ask it; `prepare` asks our own declaration."""
        if not self.verb.need.is_met(model.get("scopes") or ()):
            raise UserNotAllowed(model)
        return model

    async def in_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask the ledger in a thread. Raises PortalError while there is none."""
        return await self.portal.ask_ledger(call, *args, **kwargs)

    async def my_teams(self) -> tuple[str, ...]:
        """The teams that the caller is an administrator of."""
        if self.caller.is_admin:
            return ()  # may see everything anyway
        return await self.portal.teams.administered_by(self.caller.user)

    def write_json(self, value: Any, status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")

    def write_csv(self, text: str, filename: str) -> None:
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="{filename}"')
        self.write(text)

    # -- errors

    def log_exception(self, kind: Any, value: Any, trace: Any) -> None:
        if isinstance(value, LedgerError | PortalError):
            log.info("%s %.200s: %.300s", self.request.method, self.request.path, value)
        elif isinstance(value, DBAPIError):
            log.error("The database failed: %s", str(value).splitlines()[0])
        else:
            super().log_exception(kind, value, trace)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        status, body = describe_error(status_code, error)
        self.set_status(status)
        if status == 401:
            self.set_header("WWW-Authenticate", "token")
        elif status == 405:
            self.set_header("Allow", ", ".join(self.route.verbs))
        if self.route.is_page:
            self._write_error_page(status, body["message"])
        else:
            self.write_json(body, status)

    def _write_error_page(self, status: int, message: str) -> None:
        words = html.escape(message)
        self.finish(
            f"<!doctype html><html lang='en'><title>{status}</title><h1>{status}</h1>"
            f"<p>{words}</p><p><a href='{html.escape(self.portal.hub.prefix)}'>Back</a></p></html>"
        )


def describe_error(status: int, error: BaseException | None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an error; nothing of an unexpected one gets out."""
    if isinstance(error, LedgerError):
        return 400, error_body(error.code, error.message, error.details)
    if isinstance(error, PortalError):
        return error.status, error_body(error.code, error.message, error.details)
    if isinstance(error, DBAPIError):
        message = "The database does not answer at the moment. Try again."
        return 503, error_body("database_unavailable", message, {})
    if isinstance(error, HTTPError) and error.status_code < 500:
        words = error.log_message or http.client.responses.get(status, "Refused")
        return status, error_body(_CODES.get(status, "bad_request"), f"{words}.", {})
    message = "Something went wrong here; it is in the service's log."
    return 500, error_body("internal", message, {})


class NotFound(Handler):
    """Every path that is no route."""

    async def prepare(self) -> None:
        raise PortalError(404, "not_found", "There is nothing here.")


class LoginCallback(SafeHeaders, HubOAuthCallbackHandler):
    """The last step of a login: JupyterHub's own handler."""

    def initialize(self, portal: Portal, route: Route) -> None:
        self.hub_auth = portal.hub_auth


class Static(SafeHeaders, StaticFileHandler):
    """Style sheets."""

    def initialize(self, path: str, **options: Any) -> None:  # type: ignore[override]
        super().initialize(path)
