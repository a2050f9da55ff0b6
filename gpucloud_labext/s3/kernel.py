"""What a kernel does so that a renewed key reaches the code of its user.

Before each cell the variables are brought up to date, and botocore follows the key file. botocore
takes a fifth of a second to import, so it is prepared only when the user's code imports it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .keys import FreshVariables, KeyFile

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

PREPARED = "botocore.credentials"


def follow_keys(shell: InteractiveShell) -> None:
    """Called once when the kernel starts. Without a key file it does nothing."""
    file = KeyFile.of_environment()
    if file is None or file.read() is None:
        return
    variables = FreshVariables(file)

    def before_a_cell(info: Any) -> None:
        variables.follow()

    shell.events.register("pre_run_cell", before_a_cell)

    def prepare() -> None:
        from .following import install

        install(file)

    when_imported(PREPARED, prepare)


def when_imported(name: str, action: Callable[[], None]) -> None:
    """Call ``action`` once the module ``name`` is imported: now, where it is already."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Watch(name, action))


class _Watch(MetaPathFinder):
    """Finds its module as everybody else would, and acts after it was executed."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self._name = name
        self._action = action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._action()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
