"""The magic `%gpucloud` itself: finds the sub-command, reads its options, shows its errors."""

from __future__ import annotations

import difflib
import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from ..errors import LabError
from .command import Command, Context, Result
from .commands import COMMANDS

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

HELP = "help"


def load(shell: InteractiveShell) -> None:
    """Make `%gpucloud` and `%%gpucloud` known to ``shell``."""

    def gpucloud(line: str, cell: str | None = None) -> Any:
        """gpucloud from a notebook: `%gpucloud help` lists what it can do."""
        try:
            return dispatch(line, Context(shell, cell))
        except LabError as error:
            # IPython shows a UsageError as one line, without a traceback
            raise UsageError(error.message) from None

    # its stub types the decorator's use of it only
    shell.register_magic_function(gpucloud, "line_cell", "gpucloud")  # type: ignore[arg-type]


def dispatch(line: str, context: Context) -> Any:
    """Run ``line``, what follows `%gpucloud`. Raises LabError."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise LabError(400, "usage", f"{error}: check the quotes") from error
    name, *rest = words or [HELP]
    if name in (HELP, "-h", "--help"):
        return explain(rest[0] if rest else None)
    command = find(name)
    if "-h" in rest[:1] or "--help" in rest[:1]:
        return explain(name)
    if context.cell is not None and not command.takes_cell:
        raise LabError(400, "usage", f"%gpucloud {name} takes one line: use one % sign")
    return command.run(command.parser().parse_args(rest), context)


def find(name: str) -> Command:
    """The sub-command ``name``. Raises LabError that names the nearest one."""
    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, [*COMMANDS, HELP], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    known = ", ".join([HELP, *COMMANDS])
    raise LabError(
        400, "usage", f"There is no %gpucloud {name[:40]}.{hint} There is: {known}.", near=near
    )


def explain(name: str | None) -> Result:
    """Help on one sub-command, or the list of all."""
    if name is not None and name != HELP:
        return Result(find(name).parser().format_help())
    width = max((len(name) for name in COMMANDS), default=4)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return Result(
        "\n".join(["%gpucloud COMMAND [options]", "", *lines, "", "%gpucloud help COMMAND: more"])
    )
