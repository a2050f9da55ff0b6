"""The magic `%gpucloud` itself: finds the sub-command, reads its options, shows its errors."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import TYPE_CHECKING, Any

from ..errors import LabError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .command import Command, Context, Result

HELP = "help"
# a comment as behind the examples of the help: not within quotes, nor a word such as `#fff`
_COMMENT = re.compile(r"""((?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\\"'])*?)\s#\s.*""", re.DOTALL)


def load(shell: InteractiveShell) -> None:
    """Make `%gpucloud` and `%%gpucloud` known to ``shell``.

    Every kernel calls this at its start, so what the commands need is imported at their first use.
    """

    def gpucloud(line: str, cell: str | None = None) -> Any:
        """gpucloud from a notebook: `%gpucloud help` lists what it can do."""
        from IPython.core.error import UsageError

        from .command import Context

        try:
            return dispatch(line, Context(shell, cell))
        except LabError as error:
            # IPython shows a UsageError as one line, without a traceback
            raise UsageError(" ".join(error.message.split())) from None

    # its stub types the decorator's use of it only
    shell.register_magic_function(gpucloud, "line_cell", "gpucloud")  # type: ignore[arg-type]
    if shell.Completer is not None:
        others = [each for each in shell.Completer.custom_matchers if each is not _match]
        shell.Completer.custom_matchers = [*others, _match]


def _match(context: Any) -> Any:
    from .complete import matcher

    return matcher(context)


# how IPython knows one that is given its context
_match.matcher_api_version = 2  # type: ignore[attr-defined]
_match.matcher_identifier = "gpucloud"  # type: ignore[attr-defined]


def dispatch(line: str, context: Context) -> Any:
    """Run ``line``, what follows `%gpucloud`. Raises LabError."""
    without = _COMMENT.fullmatch(line)
    try:
        words = shlex.split(without[1] if without else line)
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
    return command.run(command.parser().parse(rest), context)


def find(name: str) -> Command:
    """The sub-command ``name``. Raises LabError that names the nearest one."""
    from .commands import COMMANDS

    if name in COMMANDS:
        return COMMANDS[name]
    near = difflib.get_close_matches(name, [*COMMANDS, HELP], n=1)
    hint = f"Did you mean {near[0]}?" if near else f"There is: {', '.join([HELP, *COMMANDS])}."
    raise LabError(400, "usage", f"There is no %gpucloud {name[:40]}. {hint}", near=near)


def explain(name: str | None) -> Result:
    """Help on one sub-command, or the list of all."""
    from .command import Result
    from .commands import COMMANDS

    if name is not None and name != HELP:
        return Result(find(name).parser().format_help().rstrip())
    width = max((len(name) for name in COMMANDS), default=4)
    lines = [f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS.values()]
    return Result(
        "\n".join(["%gpucloud COMMAND [options]", "", *lines, "", "%gpucloud help COMMAND: more"])
    )
