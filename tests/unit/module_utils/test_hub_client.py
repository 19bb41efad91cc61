"""What of the client can be said without a hub; tests/integration/test_hub_journey.py meets a real one."""

from __future__ import annotations

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError, _reason


def answer(text: str, reason: str = "Forbidden") -> requests.Response:
    response = requests.Response()
    response._content = text.encode()
    response.reason = reason
    return response


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"status": 403, "message": "missing scope"}', "missing scope"),
        ('{"status": 403, "message": ""}', "Forbidden"),
        ('<p class="login_error">Invalid username or\n password</p>', "Invalid username or password"),
        ("<h1>500</h1><p>Spawner failed</p>", "Spawner failed"),
        ("<p></p>", "Forbidden"),
        ("", "Forbidden"),
        ("[1]", "Forbidden"),
    ],
)
def test_reason_of_an_answer(text: str, expected: str) -> None:
    assert _reason(answer(text)) == expected


def test_xsrf_token_is_the_one_of_the_longest_path() -> None:
    client = HubClient("http://127.0.0.1:1")
    for path, value in (("/hub/", "hub"), ("/user/a/", "server"), ("/user/", "no")):
        client._session.cookies.set("_xsrf", value, path=path)
    assert client._xsrf("/hub/api/users/a/server") == "hub"
    assert client._xsrf("/user/a/api/kernels") == "server"
    assert client._xsrf("/other") == ""


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(requests.ConnectionError) as error:
        HubClient("http://127.0.0.1:1").health()
    assert "port=1)" in str(error.value)


def test_hub_errors_are_wrong_answers() -> None:
    assert str(HubError("403 from POST /hub/login: no")) == "403 from POST /hub/login: no"
