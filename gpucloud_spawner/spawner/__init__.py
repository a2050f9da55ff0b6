"""The hub's spawner: one application = one named server = one pod and one volume."""

from .spawner import GPUCloudSpawner

__all__ = ["GPUCloudSpawner"]
