"""`api/usage`: the service's own answer; it refuses what the server's owner may not see."""

from __future__ import annotations

from ..client import service
from .base import Handler

QUERY = {
    "group_by": "comma-separated, of: team, app, job, component, profile, product, day, month",
    "month": "calendar month (UTC), such as 2026-11; default: this one",
    "start": "RFC 3339; not with month",
    "end": "RFC 3339, exclusive",
    "team": "only what is billed to this team",
    "app": "only this application",
    "job": "only this job",
    "profile": "only this profile",
}


class Usage(Handler):
    async def get(self) -> None:
        query = self.query(QUERY)
        answer = await service().request_async("GET", "api/usage", params=query)
        self.write_json(answer)
