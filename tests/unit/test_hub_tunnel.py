"""The way through an HTTP proxy that answers as it likes; tests/integration/test_sign_in.py has a real one."""

from __future__ import annotations

import asyncio
import base64

import hub_tunnel
import pytest
from tornado.httpclient import HTTPClientError, HTTPResponse

THROUGH = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 lab\r\n\r\n"


def ask(
    answers: list[bytes], url: str = "http://github.invalid/user", login: str = ""
) -> tuple[HTTPResponse, list[str]]:
    """Ask for `url` through a proxy that gives these answers and closes; returns what came and what the proxy heard."""
    heard = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if answer == b"silence":
                await reader.read()
            writer.write(answer)
        writer.close()

    async def run() -> HTTPResponse:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            client = hub_tunnel.client(f"http://{login}127.0.0.1:{port}")
            return await client.fetch(url, connect_timeout=0.5, request_timeout=5)

    return asyncio.run(run()), heard


def test_what_the_proxy_hears() -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalice"
    answer, heard = ask([THROUGH, page], login="lab%40physics:p%2Fw%3A@")
    assert answer.body == b"alice"
    login = base64.b64encode(b"lab@physics:p/w:").decode()
    target = "github.invalid:80"
    assert heard[0] == f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {login}\r\n\r\n"
    assert heard[1].startswith("GET /user HTTP/1.1\r\n")
    assert "Proxy-Authorization" not in heard[1]


def test_no_login_is_made_up() -> None:
    with pytest.raises(HTTPClientError, match="403"):
        ask([b"HTTP/1.1 403 Forbidden\r\n\r\n"])
    _, heard = ask([THROUGH, b"HTTP/1.1 204 No Content\r\n\r\n"], url="http://[2001:db8::1]:8080/")
    assert heard[0] == "CONNECT [2001:db8::1]:8080 HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the HTTP proxy answers 407"),
        (b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nnope", "the HTTP proxy answers 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal.example.org\r\n\r\n", "the HTTP proxy answers 302"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "something else than HTTP"),
        (b"", "the HTTP proxy closes the connection"),
        (b"silence", "Timeout on the way through the HTTP proxy"),
    ],
)
def test_a_proxy_that_lets_nobody_through(answer: bytes, what: str) -> None:
    with pytest.raises(HTTPClientError) as error:
        ask([answer], login="lab:hunter2@")
    assert error.value.code == 599
    assert what in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_proxy_that_is_not_there() -> None:
    async def run() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        await hub_tunnel.client(f"http://lab:hunter2@127.0.0.1:{port}").fetch("https://github.invalid/")

    with pytest.raises(HTTPClientError) as error:
        asyncio.run(run())
    assert str(error.value) == "HTTP 599: the HTTP proxy is not reached (ConnectionRefusedError)"
