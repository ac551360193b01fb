"""Results of coroutines that run at once, as they end; those that end together come together."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any


async def as_they_end(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> AsyncIterator[list[tuple[int, Any]]]:
    """Run coroutines at once. Closing the iterator cancels those that are still running.

    Yields:
        number and result of each one that has ended since the last time. One that fails has its exception as its
        result, and the others go on.
    """
    ended: asyncio.Queue[tuple[int, asyncio.Task[Any]]] = asyncio.Queue()
    tasks = [asyncio.create_task(one) for one in coroutines]
    for number, task in enumerate(tasks):
        task.add_done_callback(lambda done, number=number: ended.put_nowait((number, done)))
    left = len(tasks)
    try:
        while left:
            found = [await ended.get()]
            while not ended.empty():
                found.append(ended.get_nowait())
            left -= len(found)
            yield [(number, _outcome(task)) for number, task in found]
    finally:
        for task in tasks:
            task.cancel()


def _outcome(task: asyncio.Task[Any]) -> Any:
    if task.cancelled():
        return RuntimeError("the request was cancelled")
    error = task.exception()
    return task.result() if error is None else _that_can_be_sent(error)


def _that_can_be_sent(error: BaseException) -> Exception:
    """The error itself, or its text where another process could not read it."""
    if isinstance(error, Exception) and _can_be_pickled(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _can_be_pickled(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # e.g. its constructor wants more than its message
        return False
    return True
