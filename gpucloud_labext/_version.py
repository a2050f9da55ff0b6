"""The version; one number for the whole distribution (setup.cfg reads gpucloud_spawner's)."""

__version__ = "0.1.0"
