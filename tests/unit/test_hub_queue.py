"""hub_queue.py: who may start a server and what the others are told. The whole is measured by the load run on a lab."""

from __future__ import annotations

import asyncio

import pytest
from hub_queue import StartQueue, describe


class Starts:
    """Starts of servers, each of which ends when the test says so."""

    def __init__(self, places: int) -> None:
        self.queue = StartQueue(places)
        self.running: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._start(name))
        await self.settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await self.settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._tasks[name]
        await self.settle()

    async def _start(self, name: str) -> None:
        async with self.queue.place(name):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def started(places: int, *names: str) -> Starts:
    starts = Starts(places)
    for name in names:
        await starts.add(name)
    return starts


def test_the_first_start_and_the_others_know_where_they_stand() -> None:
    async def check() -> None:
        starts = await started(2, "a", "b", "c", "d", "e")
        assert starts.running == ["a", "b"]
        assert [starts.queue.ahead(name) for name in "abcde"] == [None, None, 0, 1, 2]
        await starts.end("b")
        assert starts.running == ["a", "c"]
        assert [starts.queue.ahead(name) for name in "cde"] == [None, 0, 1]
        for name in "acde":
            await starts.end(name)
        assert starts.running == []

    asyncio.run(check())


def test_who_gives_up_leaves_the_queue() -> None:
    async def check() -> None:
        starts = await started(1, "a", "b", "c")
        await starts.cancel("b")
        assert starts.queue.ahead("c") == 0
        await starts.end("a")
        assert starts.running == ["c"]

    asyncio.run(check())


def test_a_start_that_is_cancelled_gives_its_place_back() -> None:
    async def check() -> None:
        starts = await started(1, "a", "b")
        await starts.cancel("a")
        assert starts.running == ["b"]

    asyncio.run(check())


def test_a_place_may_be_given_back_early_and_only_once() -> None:
    async def check() -> None:
        starts = Starts(places=1)
        async with starts.queue.place("no room for it") as place:
            await starts.add("b")
            assert starts.running == []
            place.give_back()
            await starts.settle()
            assert starts.running == ["b"]
        await starts.add("c")
        assert starts.running == ["b"], "the place was given back twice"
        await starts.end("b")
        await starts.end("c")

    asyncio.run(check())


@pytest.mark.parametrize(("ahead", "says"), [(0, "next to start"), (1, "1 starts before"), (12, "12 start before")])
def test_people_are_told_in_words(ahead: int, says: str) -> None:
    assert says in describe(ahead)
