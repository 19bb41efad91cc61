"""The queue of servers that are to start: first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Place:
    """One of the places of a queue."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def give_back(self) -> None:
        """Let the next one start; once is enough."""
        if self._places:
            self._places.release()
        self._places = None


class StartQueue:
    """Lets a number of servers start at the same time; the others wait, and can be told where they stand.

    places: servers that may start at the same time; at least 1.
    """

    def __init__(self, places: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._waiting: list[object] = []

    def ahead(self, start: object) -> int | None:
        """Return how many starts come before this one; None when it does not wait."""
        return self._waiting.index(start) if start in self._waiting else None

    @asynccontextmanager
    async def place(self, start: object) -> AsyncIterator[Place]:
        """Wait for a place and hold it. A start that is cancelled leaves the queue, or gives its place back.

        The place may be given back earlier, by a start that has to wait for something else than the processor.
        """
        self._waiting.append(start)
        try:
            await self._places.acquire()
        finally:
            self._waiting.remove(start)
        place = Place(self._places)
        try:
            yield place
        finally:
            place.give_back()


def describe(ahead: int) -> str:
    """Return what a person who waits is told."""
    if ahead == 0:
        return "Many people are starting servers. Yours is the next to start."
    return f"Many people are starting servers. {ahead} {'starts' if ahead == 1 else 'start'} before yours."
