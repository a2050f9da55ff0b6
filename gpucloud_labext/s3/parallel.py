"""Several requests to a store at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def for_each(function: Callable[[Item], object], items: Sequence[Item], threads: int) -> None:
    """Call ``function`` for every item, ``threads`` at a time; the first error ends it and is
    raised. What runs by then is waited for."""
    if len(items) < 2:
        for item in items:
            function(item)
        return
    with ThreadPoolExecutor(min(threads, len(items)), "gpucloud-s3") as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
