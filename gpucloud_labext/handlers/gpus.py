"""`api/gpus`."""

from __future__ import annotations

from .base import Handler


class GPUs(Handler):
    async def get(self) -> None:
        self.write_json((await self.extension.gpus.read()).as_data())
