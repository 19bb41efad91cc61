"""How the dashboards answer wrong passwords; the rest is in tests/integration/test_dashboards_sign_in.py."""

from __future__ import annotations

import asyncio

import pytest
import sign_in
from tornado.web import HTTPError


def test_wrong_passwords_of_one_address_are_answered_one_by_one_and_a_few_wait_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sign_in, "WRONG_WAITING", 3)
    go_on = asyncio.Semaphore(0)

    async def sleep(_seconds: float) -> None:
        await go_on.acquire()

    async def scenario() -> None:
        guesses = sign_in.Guesses()
        waiting = [asyncio.create_task(guesses.wait("10.0.0.1")) for _ in range(3)]
        await turns()
        with pytest.raises(HTTPError) as refused:
            await guesses.wait("10.0.0.1")
        assert refused.value.status_code == 429
        other = asyncio.create_task(guesses.wait("10.0.0.2"))
        await turns()
        assert not other.done(), "another address has room, and waits as well"
        for answered in range(5):
            assert sum(task.done() for task in [*waiting, other]) == answered
            if answered < 4:
                go_on.release()
            await turns()
        again = asyncio.create_task(guesses.wait("10.0.0.1"))
        await turns()
        assert not again.done(), "there is room again"
        go_on.release()
        await again

    async def turns() -> None:
        for _ in range(10):
            await real_sleep(0)

    real_sleep = asyncio.sleep
    monkeypatch.setattr(sign_in.asyncio, "sleep", sleep)
    asyncio.run(scenario())
