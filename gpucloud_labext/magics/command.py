"""What a sub-command of `%gpucloud` is: its options, what it does, and what it gives back."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import LabError


class Parser(argparse.ArgumentParser):
    """argparse for a notebook: wrong input is a LabError, and nothing ends the kernel.

    ``takes_rest``: what follows ``--`` is somebody else's, kept as it is in ``rest``.
    """

    takes_rest = False

    def parse(self, words: list[str]) -> argparse.Namespace:
        """The options of a line. Raises LabError."""
        if not self.takes_rest:
            return self.parse_args(words)
        own = words[: words.index("--")] if "--" in words else words
        return self.parse_args(own, argparse.Namespace(rest=words[len(own) + 1 :]))

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
    ``html`` is escaped by who makes it. ``data`` is what it is made of; where that is a dict, its
    values are attributes and items, too: ``status.gpus``, ``status["gpus"]``.
    """

    text: str
    html: str | None = None
    data: Any = None
    # already on the page, by `display`: not shown once more as the cell's value
    shown: bool = False

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str | None:
        return self.html

    def _ipython_display_(self) -> None:
        if not self.shown:
            raise NotImplementedError  # IPython's word for: as usual

    def __getattr__(self, name: str) -> Any:
        # not for names such as _ipython_display_, which IPython tries
        if not name.startswith("_") and isinstance(self.data, dict) and name in self.data:
            return self.data[name]
        raise AttributeError(f"there is no {name!r}")

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]

    def __dir__(self) -> list[str]:
        extra = [str(name) for name in self.data] if isinstance(self.data, dict) else []
        return [*super().__dir__(), *extra]


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
    examples: tuple[str, ...] = ()  # lines as they are typed, maybe with "  # what it does"

    def parser(self) -> Parser:
        """Its options, as argparse knows them."""
        examples = "".join(f"\n  {line}" for line in self.examples)
        parser = Parser(
            prog=f"%gpucloud {self.name}",
            description=self.summary,
            epilog=f"examples:{examples}" if examples else None,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_options(parser)
        return parser
