"""Apply a function to many items in threads, in order, with few items in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def usable_cores(most: int) -> int:
    """Return the number of cores this process may use, at most ``most``."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    return min(most, cores)


def map_in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in the order of the items.

    At most ``2 * threads`` items are waiting or in progress. An error of the function is raised instead of its
    result. An error of ``items`` is raised after the results of all items before it.

    Args:
        function: must be safe to call from several threads.
        items: read by the calling thread only.
        threads: number of threads, at least 1.
    """
    waiting: deque[Future[R]] = deque()
    failure: Exception | None = None
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            while failure is None:
                try:
                    waiting.append(pool.submit(function, next(source)))
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if failure is not None:
        raise failure
