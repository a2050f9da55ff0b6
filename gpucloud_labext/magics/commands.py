"""The sub-commands of `%gpucloud`, in the order in which help lists them."""

from __future__ import annotations

from .command import Command

_ALL: tuple[Command, ...] = ()
COMMANDS = {command.name: command for command in _ALL}
