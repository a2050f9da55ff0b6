"""`%gpucloud` and `%%gpucloud` in notebooks: one module per group of sub-commands.

`commands` lists them, `command` says what one is, `dispatch` is the magic itself.
"""

from .dispatch import load

__all__ = ["load"]
