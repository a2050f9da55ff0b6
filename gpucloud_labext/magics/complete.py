"""The tab key behind `%gpucloud`: sub-commands, their options, and what options allow."""

from __future__ import annotations

import argparse
import re
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion

from .command import Command, Parser
from .commands import COMMANDS

HELP = "help"
# also behind `name = `
_LINE = re.compile(r"(?:.*=)?\s*(%{1,2}gpucloud\s.*)", re.DOTALL)


def complete(line: str) -> list[str]:
    """What the last word of ``line``, the text up to the cursor, may become."""
    *before, last = line.lstrip().split(" ")
    words = [word for word in before if word][1:]  # without %gpucloud itself
    if not words or words == [HELP]:
        names = [*COMMANDS] if words else [HELP, *COMMANDS]
        return _starting(last, names)
    command = COMMANDS.get(words[0])
    return [] if command is None else _starting(last, _of_command(command, words[1:], last))


def _of_command(command: Command, words: list[str], last: str) -> list[str]:
    parser = command.parser()
    if last.startswith("--") and "=" in last:
        name = last.partition("=")[0]
        return [f"{name}={value}" for value in _values(parser, name)]
    if words and (values := _values(parser, words[-1])):
        return values
    own = command.complete(last) if command.complete is not None else []
    positional = [
        str(choice)
        for action in parser._actions
        if not action.option_strings
        for choice in action.choices or ()
    ]
    return [*positional, *own, *_options(parser, words)]


def _options(parser: Parser, words: list[str]) -> list[str]:
    """The options that are not there yet."""
    return [
        name
        for action in parser._actions
        if isinstance(action, argparse._AppendAction)
        or not set(action.option_strings).intersection(words)
        for name in action.option_strings
        if name.startswith("--")
    ]


def _values(parser: Parser, option: str) -> list[str]:
    for action in parser._actions:
        if option in action.option_strings:
            return [str(choice) for choice in action.choices or ()]
    return []


def _starting(text: str, words: list[str]) -> list[str]:
    return [word for word in words if word.startswith(text)]


def matcher(context: CompletionContext) -> dict[str, Any]:
    """For IPython's completer: nothing but ours where there is something of ours."""
    line = _LINE.fullmatch(context.text_until_cursor)
    found = complete(line[1]) if line is not None else []
    return {
        "completions": [SimpleCompletion(text=word, type="param") for word in found],
        "suppress": bool(found),
        # IPython's own idea of a word ends at "=" and begins after "--"
        "matched_fragment": line[1].rpartition(" ")[2] if line is not None else context.token,
    }
