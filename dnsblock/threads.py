"""Work in threads that does not outlive its caller."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but leaves no thread behind that still uses a discarded file.

    When cancelled, it waits for the work to end: one piece, or at most the sync of a list to disk.
    """
    task = asyncio.create_task(asyncio.to_thread(work, *args, **kwargs))
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as err:
            cancelled = err
    if cancelled is not None:
        task.exception()  # retrieved, otherwise asyncio logs it as never retrieved
        raise cancelled
    return task.result()
