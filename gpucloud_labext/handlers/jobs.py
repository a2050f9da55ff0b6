"""`api/jobs...`: the user's jobs, passed on to the service and back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tornado.iostream import StreamClosedError

from ..client import service
from ..errors import LabError
from ..jobs.launch import Launch, launch
from ..jobs.logs import archived
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
# What the panel's form sends; all but the script has a default.
LAUNCH_BODY = {
    "script": "a .py or .ipynb file, its path from the home",
    "directory": "the folder that travels, from the home; default: the script's",
    "args": "the script's arguments",
    "workers": "how many; default: 1",
    "ps": "parameter servers; default: 0",
    "chief": "a replica that coordinates; default: with parameter servers",
    "evaluator": "one more replica, that only looks on",
    "gpus": "of the chief and of each worker; default: the profile's",
    "profile": "default: the server's",
    "image": "one of the profile's images",
    "team": "who pays; default: as for the server",
    "cpu": "cores of each replica",
    "memory": "of each replica, e.g. 8G",
    "env": "variables: names and values",
    "timeout": "ends the job, e.g. 8h",
    "name": "default: from the script",
}
LAUNCH_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(LAUNCH_BODY, str),
    "args": list,
    "workers": int,
    "ps": int,
    "gpus": int,
    "chief": bool,
    "evaluator": bool,
    "env": dict,
}
_S3 = re.compile(r"s3://([^/]+)/(.*)logs/")
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_id(job: str) -> str:
    """``job`` where it can be the id of one: it becomes a part of the service's URL."""
    if not _ID.fullmatch(job):
        raise LabError(404, "no_such_job", f"There is no job {job[:63]!r}.")
    return job


def launch_from(home: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """The model of a new job, its script somewhere below ``home``. Raises LabError."""
    fields = dict(fields)
    words = [*fields.get("args", []), *(fields.get("env") or {}).values()]
    if not all(isinstance(word, str) for word in words):
        raise LabError(400, "bad_value", "args and the values of env are strings.")
    name = fields.pop("script", "")
    if not name:
        raise LabError(404, "no_script", "Which script? A .py or .ipynb file of your home.")
    folder = fields.pop("directory", None)
    try:
        script = (home / name.lstrip("/")).resolve()
        directory = script.parent if folder is None else (home / folder.lstrip("/")).resolve()
        is_file = script.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL
        raise LabError(400, "bad_value", f"{name[:80]!r} cannot be opened: {error}") from error
    for path in (script, directory):
        if not path.is_relative_to(home):
            raise LabError(400, "outside", "The script and its folder must lie in your home.")
    if not is_file:
        raise LabError(404, "no_script", f"There is no file {script.relative_to(home)}.")
    return launch(Launch(script=str(script), directory=directory, **fields)).model


class Jobs(Handler):
    async def get(self) -> None:
        query = self.query(LIST_QUERY)
        self.write_json(await service().request_async("GET", "api/jobs", params=query))

    async def post(self) -> None:
        fields = self.json_body(LAUNCH_TYPES)
        self.write_json(await asyncio.to_thread(launch_from, self.extension.home, fields), 201)


class Job(Handler):
    async def get(self, job: str) -> None:
        self.write_json(await service().request_async("GET", f"api/jobs/{checked_id(job)}"))

    async def delete(self, job: str) -> None:
        answer = await service().request_async("DELETE", f"api/jobs/{checked_id(job)}")
        self.write_json({} if answer is None else answer)


class JobLogs(Handler):
    _reading: asyncio.Task[None] | None = None

    def on_connection_close(self) -> None:
        """A job that says nothing would keep the reader for hours."""
        if self._reading is not None:
            self._reading.cancel()

    async def get(self, job: str) -> None:
        path, query = f"api/jobs/{checked_id(job)}/logs", self.query(LOG_QUERY)
        self._reading = asyncio.create_task(self._pass_on(path, query), name=f"logs of {job}")
        try:
            await self._until_read()
        except LabError as error:
            # the service has no key for the user's bucket; this server has
            place = _S3.fullmatch(str(error.details.get("prefix")))
            if error.code != "logs_archived" or place is None:
                raise
            tail = self.get_query_argument("tail", "")
            count = int(tail) if tail.isascii() and tail.isdigit() else None
            replica = self.get_query_argument("replica", "")
            text = await asyncio.to_thread(archived, place[1], place[2], replica, count)
            self.set_header("Cache-Control", "no-store")
            await self.finish(text, set_content_type="text/plain; charset=utf-8")

    async def _pass_on(self, path: str, query: Mapping[str, Any]) -> None:
        """The service's answer, as it comes."""
        try:
            await self._copy(path, query)
        except LabError:
            if not self._headers_written:
                raise
            # too late for an error: a log that ends early must not look complete
            self.detach().close()

    async def _until_read(self) -> None:
        assert self._reading is not None
        try:
            await asyncio.wait([self._reading])
        finally:
            self._reading.cancel()  # no more than a word where it is done
        if not self._reading.cancelled():
            self._reading.result()

    async def _copy(self, path: str, query: Mapping[str, Any]) -> None:
        async with service().stream_async(path, query) as answer:
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
