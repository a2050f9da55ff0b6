"""What a sub-command of `%gpucloud` is: its options, what it does, and what it gives back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import LabError


class Parser(argparse.ArgumentParser):
    """argparse for a notebook: wrong input is a LabError, and nothing ends the kernel."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for whatever it does not understand."""
        raise LabError(400, "usage", f"{message}. See: %gpucloud help {self.prog.split()[-1]}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Called by argparse where a program would end."""
        raise LabError(400, "usage", message or "See: %gpucloud help")


@dataclass
class Result:
    """What a sub-command gives back: shown when it is a cell's last line, else a plain value.

    ``text`` and ``html`` are the same in words and as a picture; every value of user data in
    ``html`` is escaped by who makes it.
    """

    text: str
    html: str | None = None
    data: Any = None

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str | None:
        return self.html


@dataclass(frozen=True)
class Context:
    """Where a sub-command runs: the IPython shell, and the cell of `%%gpucloud` (None for `%`)."""

    shell: Any = None
    cell: str | None = None


@dataclass(frozen=True)
class Command:
    """One sub-command. ``add_options`` declares its options, from which its help is made;
    ``complete`` gives words that may follow, for the tab key."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace, Context], Any]
    add_options: Callable[[Parser], None] = field(default=lambda parser: None)
    complete: Callable[[str], list[str]] | None = None
    takes_cell: bool = False

    def parser(self) -> Parser:
        """Its options, as argparse knows them."""
        parser = Parser(
            prog=f"%gpucloud {self.name}",
            description=self.summary,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        return parser
