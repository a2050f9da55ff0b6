"""Startup, readiness and liveness probes of one container, and its lifecycle hooks' commands.

Says only what a probe found; what follows from it is the pod worker's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from .runtime import StartError, find_executable

Obj = dict[str, Any]
OUTPUT_BYTES = 10 * 1024


@dataclass(frozen=True)
class Target:
    """Where a container's probes go."""

    host: str
    ports: Mapping[str, int]
    env: Mapping[str, str]
    cwd: Path
    translate: Callable[[str], str]

    def port(self, value: int | str) -> int:
        text = str(value)
        return int(text) if text.isdecimal() else self.ports[text]


class Probe:
    """One configured probe: runs until cancelled, and calls `report` when its verdict changes."""

    def __init__(
        self,
        kind: str,
        spec: Obj,
        target: Target,
        http: aiohttp.ClientSession,
        report: Callable[[bool], None],
        unhealthy: Callable[[str], None],
    ) -> None:
        self.kind = kind
        self.spec = spec
        self.target = target
        self._http = http
        self._report = report
        self._unhealthy = unhealthy

    async def run(self) -> None:
        """Probes as often as the spec says. A startup probe ends with its first success."""
        period = self.spec.get("periodSeconds") or 10
        needed = {
            True: self.spec.get("successThreshold") or 1,
            False: self.spec.get("failureThreshold") or 3,
        }
        verdict: bool | None = None
        last, streak = None, 0
        await asyncio.sleep(self.spec.get("initialDelaySeconds") or 0)
        while True:
            healthy, output = await self._once()
            if not healthy:
                self._unhealthy(f"{self.kind.capitalize()} probe failed: {output}")
            streak = streak + 1 if healthy == last else 1
            last = healthy
            if streak >= needed[healthy] and verdict != healthy:
                verdict = healthy
                self._report(healthy)
                if healthy and self.kind == "startup":
                    return
            await asyncio.sleep(period)

    async def _once(self) -> tuple[bool, str]:
        timeout = self.spec.get("timeoutSeconds") or 1
        return await check(self.spec, self.target, self._http, timeout)


async def check(
    action: Obj, target: Target, http: aiohttp.ClientSession, timeout: float
) -> tuple[bool, str]:
    """Runs one probe (or hook) action: whether it succeeded, and what it said if not."""
    try:
        if "exec" in action:
            return await _exec(action["exec"].get("command") or [], target, timeout)
        if "httpGet" in action:
            return await _http_get(action["httpGet"], target, http, timeout)
        if "tcpSocket" in action:
            return await _tcp(action["tcpSocket"], target, timeout)
    except KeyError as error:
        return False, f"unknown port {error}"
    except (OSError, ValueError, OverflowError) as error:
        # What cannot be tried has failed; a probe that died silently would look like health.
        return False, str(error) or type(error).__name__
    if "sleep" in action:
        await asyncio.sleep(action["sleep"]["seconds"])
        return True, ""
    return False, "this kind of probe is not implemented by the local cluster"


async def _tcp(spec: Obj, target: Target, timeout: float) -> tuple[bool, str]:
    host, port = spec.get("host") or target.host, target.port(spec["port"])
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError) as error:
        return False, f"dial tcp {host}:{port}: {_cause(error)}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True, ""


async def _http_get(
    spec: Obj, target: Target, http: aiohttp.ClientSession, timeout: float
) -> tuple[bool, str]:
    host, port = spec.get("host") or target.host, target.port(spec["port"])
    scheme = (spec.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{host}:{port}/{(spec.get('path') or '/').lstrip('/')}"
    headers = {h["name"]: h["value"] for h in spec.get("httpHeaders") or []}
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"} | headers
    try:
        async with http.get(
            url,
            headers=headers,
            ssl=False,  # as a kubelet: a probe asks for life, not for identity
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout),
        ) as response:
            if 200 <= response.status < 400:
                return True, ""
            return False, f"HTTP probe failed with statuscode: {response.status}"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return False, f'Get "{url}": dial tcp {host}:{port}: {_cause(error)}'


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", error)
    if isinstance(inner, TimeoutError):
        return "i/o timeout"
    if isinstance(inner, OSError) and inner.errno:
        return f"connect: {os.strerror(inner.errno).lower()}"
    return str(error) or type(error).__name__


async def _exec(command: Sequence[str], target: Target, timeout: float) -> tuple[bool, str]:
    argv = [target.translate(text) for text in command]
    if not argv:
        return False, "no command"
    try:
        executable = find_executable(argv[0], target.env.get("PATH", ""), target.cwd)
    except StartError as error:
        return False, str(error)
    process = await asyncio.create_subprocess_exec(
        *argv,
        executable=executable,
        env=dict(target.env),
        cwd=target.cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout):
            output = await _beginning(process.stdout)
            code = await process.wait()
    except TimeoutError:
        return False, f"command timed out: {' '.join(command)!r} timed out after {timeout:g}s"
    finally:
        if process.returncode is None:  # else its pid may already be another's
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return code == 0, output.decode(errors="replace").strip()


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    """All output is taken, or a talkative command would never end; its beginning is kept."""
    kept = b""
    while piece := await stream.read(OUTPUT_BYTES):
        kept += piece[: OUTPUT_BYTES - len(kept)]
    return kept
