"""`api/status` and `api/activity`."""

from __future__ import annotations

from ..status import status
from .base import Handler


class Status(Handler):
    async def get(self) -> None:
        activity = self.extension.activity
        look = await activity.look()
        bill = await self.extension.bill.read()
        self.write_json(status(bill, self.settings["started"], activity.as_data(look)))


class ActivityHandler(Handler):
    async def get(self) -> None:
        activity = self.extension.activity
        self.write_json(activity.as_data(await activity.look()))
