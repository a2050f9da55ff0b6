"""The sub-commands of `%gpucloud`, in the order in which help lists them."""

from __future__ import annotations

from . import gpus, jobs, s3, status, tensorboard, usage
from .command import Command

_ALL: tuple[Command, ...] = (
    status.COMMAND,
    gpus.COMMAND,
    usage.COMMAND,
    jobs.RUN,
    jobs.JOBS,
    jobs.LOGS,
    jobs.STOP,
    s3.COMMAND,
    tensorboard.COMMAND,
)
COMMANDS = {command.name: command for command in _ALL}
