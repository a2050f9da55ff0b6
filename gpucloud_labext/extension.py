"""The Jupyter server extension: what a user's server serves below `gpucloud/`, put together.

Settings are traits of `GPUCloudExtension` (`c.GPUCloudExtension....`). Each part that runs in the
background is started here and ended with the server.
"""

from __future__ import annotations

from pathlib import Path

from jupyter_server.extension.application import ExtensionApp

from .handlers import routes


class GPUCloudExtension(ExtensionApp):
    """gpucloud in a Jupyter server. Enabled on install."""

    name = routes.PREFIX
    extension_url = "/lab"
    load_other_extensions = True

    @property
    def home(self) -> Path:
        """The folder that the file browser shows as its root."""
        assert self.serverapp is not None  # set before anything else is called
        return Path(self.serverapp.root_dir).resolve()

    def initialize_handlers(self) -> None:
        """Mount the table of routes."""
        self.handlers.extend(routes.mount(self))

    async def stop_extension(self) -> None:
        """Called by the server at its end."""
