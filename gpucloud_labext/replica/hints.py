"""What a known trace means: a sentence that says what to do instead. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

KERAS_FIT = (
    "model.fit of Keras 3 does not run under MultiWorkerMirroredStrategy and "
    "ParameterServerStrategy. Use tf_keras (import tf_keras as keras, with "
    "--env TF_USE_LEGACY_KERAS=1), or write the training loop yourself; both are in examples/jobs."
)
OUT_OF_MEMORY = "The replica ran out of memory: ask for more with --memory, or use smaller batches."
_KERAS_3 = re.compile(r"keras/src/(backend/tensorflow|trainers|models|utils|optimizers)")
_FIT = re.compile(r"\.fit\(")
_STRATEGY = re.compile(r"distribut|strategy|per_?replica|coordinator|collective", re.IGNORECASE)


def find(lines: Sequence[str]) -> str | None:
    """The hint for a script's last lines, if they show anything known."""
    text = "\n".join(lines)
    if all(sign.search(text) for sign in (_KERAS_3, _FIT, _STRATEGY)):
        return KERAS_FIT
    if "MemoryError" in text or "std::bad_alloc" in text:
        return OUT_OF_MEMORY
    return None
