"""gpucloud's hub side: the spawner, and `configure(c)` that wires it into a JupyterHub.

The names below are the public ones; everything else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .model.profiles import Image, Profile
    from .spawner import GPUCloudSpawner
    from .spawner.configure import configure
    from .storage.s3_ceph import CephRGW
    from .storage.s3_local import LocalS3
    from .storage.s3_static import StaticS3

__all__ = [
    "CephRGW",
    "GPUCloudSpawner",
    "Image",
    "LocalS3",
    "Profile",
    "StaticS3",
    "__version__",
    "configure",
]

_HOMES = {
    "GPUCloudSpawner": ".spawner",
    "configure": ".spawner.configure",
    "Image": ".model.profiles",
    "Profile": ".model.profiles",
    "CephRGW": ".storage.s3_ceph",
    "LocalS3": ".storage.s3_local",
    "StaticS3": ".storage.s3_static",
}


def __getattr__(name: str) -> Any:
    # on demand: the local cluster and the command line must not load (or need) a whole JupyterHub
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name], __name__), name)
