"""The Jupyter server extension: what a user's server serves below `gpucloud/`, put together.

Settings are traits of `GPUCloudExtension` (`c.GPUCloudExtension....`). Each part that runs in the
background is started here and ended with the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from traitlets import Float, Integer

from .activity import Activity
from .contents import GPUCloudContentsManager
from .gpus import Reader
from .handlers import routes
from .s3.places import drives
from .s3.server import KeyWatch
from .status import Bill
from .tensorboard.manager import TensorBoards


class GPUCloudExtension(ExtensionApp):
    """gpucloud in a Jupyter server. Enabled on install."""

    name = routes.PREFIX
    extension_url = "/lab"
    load_other_extensions = True
    classes = [TensorBoards]

    activity_interval = Float(
        30.0,
        min=0.05,
        help="""
        Seconds between two looks at what kernels, terminals and GPUs do.

        Work that is shorter than this may go unnoticed. Example: 10.
        """,
    ).tag(config=True)

    gpu_busy_percent = Integer(
        5,
        min=1,
        max=100,
        help="""
        The load of a GPU, in percent, from which on the server counts as working.

        Example: 1, where models are small.
        """,
    ).tag(config=True)

    present_seconds = Float(
        900.0,
        help="""
        Seconds for which somebody counts as present after the last input. Example: 300.
        """,
    ).tag(config=True)

    gpus: Reader
    bill: Bill
    activity: Activity
    tensorboards: TensorBoards
    keys: KeyWatch

    @property
    def home(self) -> Path:
        """The folder that the file browser shows as its root."""
        assert self.serverapp is not None  # set before anything else is called
        return Path(self.serverapp.root_dir).resolve()

    def _link_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """Called before the server makes its contents manager: ours is the default with S3."""
        super()._link_jupyter_server_extension(serverapp)
        # a file of config.d can turn extensions on, but sets nothing else; and who has chosen a
        # manager keeps it
        if "contents_manager_class" not in serverapp.config.ServerApp and drives():
            serverapp.contents_manager_class = GPUCloudContentsManager

    def initialize_settings(self) -> None:
        """Make the parts; the handlers find them here."""
        assert self.serverapp is not None
        self.gpus = Reader()
        self.bill = Bill()
        self.activity = Activity(
            self.serverapp,
            self.gpus,
            interval=self.activity_interval,
            gpu_busy_percent=self.gpu_busy_percent,
            present_seconds=self.present_seconds,
        )
        self.keys = KeyWatch()
        self.tensorboards = TensorBoards(self.home, self.serverapp.base_url, parent=self)

    def initialize_handlers(self) -> None:
        """Mount the table of routes."""
        self.handlers.extend(routes.mount(self))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Called by the server once its event loop runs."""
        self.activity.start()
        self.keys.start()

    async def stop_extension(self) -> None:
        """Called by the server at its end."""
        await self.keys.stop()
        await self.activity.stop()
        await self.tensorboards.close()
