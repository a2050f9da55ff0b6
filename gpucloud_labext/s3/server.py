"""What a Jupyter server does so that kernels and terminals start with the present key."""

from __future__ import annotations

import asyncio
import contextlib

from .keys import FreshVariables, KeyFile

LOOK_SECONDS = 1.0


class KeyWatch:
    """Keeps this process's own variables as the mounted file has them: what it starts gets them."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Without a key file it does nothing."""
        file = KeyFile.of_environment()
        if file is not None:
            self._task = asyncio.create_task(self._run(FreshVariables(file)))

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, variables: FreshVariables) -> None:
        while True:
            variables.follow()
            await asyncio.sleep(LOOK_SECONDS)
