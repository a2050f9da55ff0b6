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


ROUTES: tuple[Route, ...] = ()


def mount(extension: GPUCloudExtension) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The table as tornado's rules; jupyter-server puts its base URL before them."""
    return [
        (rf"/{PREFIX}/{route.pattern}", route.handler, {"extension": extension}) for route in ROUTES
    ]
