"""What gpucloud adds to a user's own Jupyter server. Imports nothing of gpucloud_spawner.

`contents/` is the file browser's two roots, the home volume and S3. Nothing here holds a right that
the user lacks: a notebook server is the user's own.
"""

from ._version import __version__

__all__ = ["__version__"]
