"""`api/tensorboards`: start, list, look at and stop TensorBoards."""

from __future__ import annotations

from ..errors import LabError
from .base import Handler


class TensorBoardsHandler(Handler):
    """`api/tensorboards`"""

    async def get(self) -> None:
        """All of this server, with memory and last use."""
        self.write_json({"tensorboards": await self.extension.tensorboards.models()})

    async def post(self) -> None:
        """201 with a new one, 200 with the one that is there. It may still be starting: its
        address waits until it is ready."""
        logdir = self.json_body({"logdir": str}).get("logdir")
        if logdir is None:
            raise LabError(
                400,
                "missing_field",
                "logdir is missing: a folder of your home, or s3://bucket/path.",
                parameter="logdir",
            )
        boards = self.extension.tensorboards
        instance, is_new = await boards.open(logdir)
        [model] = await boards.models([instance])
        self.write_json(model, 201 if is_new else 200)


class TensorBoardHandler(Handler):
    """`api/tensorboards/<id>`"""

    async def get(self, id: str) -> None:
        """One of them."""
        boards = self.extension.tensorboards
        [model] = await boards.models([boards.get(id)])
        self.write_json(model)

    async def delete(self, id: str) -> None:
        """Stop it. What it showed stays where it is."""
        await self.extension.tensorboards.stop(id)
        self.set_status(204)
        self.finish()
