"""Keys that wait to be looked at: each once, never by two workers, again after a while."""

from __future__ import annotations

import asyncio


class WorkQueue:
    """A queue of keys. A key that is added while it is worked on comes again afterwards."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}  # in order
        self._active: set[str] = set()
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str) -> None:
        self._waiting[key] = None
        self._filled.set()

    def add_later(self, key: str, seconds: float) -> None:
        """Add a key after ``seconds``; the sooner of two such wishes holds."""
        loop = asyncio.get_running_loop()
        known = self._later.get(key)
        if known is not None:
            if known.when() <= loop.time() + seconds:
                return
            known.cancel()
        self._later[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: str) -> None:
        self._later.pop(key, None)
        self.add(key)

    async def take(self) -> str:
        """The next key that nobody works on; `done` must follow."""
        while True:
            for key in self._waiting:
                if key not in self._active:
                    del self._waiting[key]
                    self._active.add(key)
                    return key
            self._filled.clear()
            await self._filled.wait()

    def done(self, key: str) -> None:
        self._active.discard(key)
        if self._waiting:
            self._filled.set()

    def close(self) -> None:
        """Forget everything that waits."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        self._waiting.clear()
