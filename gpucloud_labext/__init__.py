"""What gpucloud adds to a user's own Jupyter server. Imports nothing of gpucloud_spawner.

`extension` is the Jupyter server extension, `handlers/` its REST API, `magics/` is `%gpucloud` in
notebooks, `tensorboard/` starts and serves TensorBoards, `contents/` is the file browser's two
roots, the home volume and S3, `frontend/` is the panel in JupyterLab. Nothing here holds a right
that the user lacks: a notebook server is the user's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .jobs.launch import run as run

__all__ = ["__version__", "run"]


def __getattr__(name: str) -> Any:
    """`run` starts a job; made known at its first use, for every kernel imports this package."""
    if name == "run":
        from .jobs.launch import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """https://jupyter-server.readthedocs.io/en/latest/developers/extensions.html"""
    # not at import: a kernel loads this package, too
    from .extension import GPUCloudExtension

    return [{"module": "gpucloud_labext", "app": GPUCloudExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where the built front end is, for `jupyter labextension develop`."""
    return [{"src": "labextension", "dest": "gpucloud"}]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """`%load_ext gpucloud_labext`: makes `%gpucloud` known, and renewed S3 keys."""
    from .magics import load
    from .s3.kernel import follow_keys

    load(shell)
    follow_keys(shell)
