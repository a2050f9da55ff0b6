"""`api/jobs...`: the user's jobs, passed on to the service and back."""

from __future__ import annotations

import re

from tornado.iostream import StreamClosedError

from ..client import service
from ..errors import LabError
from .base import Handler

LIST_QUERY = {
    "state": "only jobs in this state",
    "user": "only this user's; for those who may see others' jobs",
    "page_size": "how many",
    "cursor": "`next` of the page before",
}
LOG_QUERY = {
    "replica": "such as worker-0; default: all, each line with its replica in front",
    "follow": "1: go on until the job ends",
    "tail": "only so many lines of what there is",
}
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_id(job: str) -> str:
    """``job`` where it can be the id of one: it becomes a part of the service's URL."""
    if not _ID.fullmatch(job):
        raise LabError(404, "no_such_job", f"There is no job {job[:63]!r}.")
    return job


class Jobs(Handler):
    async def get(self) -> None:
        query = self.query(LIST_QUERY)
        self.write_json(await service().request_async("GET", "api/jobs", params=query))


class Job(Handler):
    async def get(self, job: str) -> None:
        self.write_json(await service().request_async("GET", f"api/jobs/{checked_id(job)}"))

    async def delete(self, job: str) -> None:
        answer = await service().request_async("DELETE", f"api/jobs/{checked_id(job)}")
        self.write_json({} if answer is None else answer)


class JobLogs(Handler):
    async def get(self, job: str) -> None:
        path = f"api/jobs/{checked_id(job)}/logs"
        async with service().stream_async(path, self.query(LOG_QUERY)) as answer:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.set_header("Cache-Control", "no-store")
            self.set_header("X-Accel-Buffering", "no")  # an ingress would keep lines back
            try:
                async for chunk in answer.aiter_bytes():
                    self.write(chunk)
                    await self.flush()
                # the base class sets another type where none is named
                await self.finish(set_content_type="text/plain; charset=utf-8")
            except StreamClosedError:
                pass  # nobody reads any more
