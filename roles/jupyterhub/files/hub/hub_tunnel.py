"""The way out of the lab where only an HTTP proxy leads there.

Tornado's client, which oauthenticator uses, knows no proxies. With pycurl it would, but where that is installed it
serves every site's sign-in and the culler, too; this serves the one client that is given it.
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tornado.httpclient import HTTPClientError
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import HTTPTimeoutError, SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient

if TYPE_CHECKING:
    import ssl

    from tornado.iostream import IOStream

LARGEST_ANSWER = 65536  # bytes of what the proxy says before the connection is through


class ProxyError(HTTPClientError):
    """The proxy let nobody through, so that the server beyond it was not asked."""

    def __init__(self, reason: str) -> None:
        super().__init__(599, f"the HTTP proxy {reason}")


class Tunnel(TCPClient):
    """Connects through the HTTP proxy at an address such as `http://name:password@proxy.example.org:3128`."""

    def __init__(self, proxy: str) -> None:
        super().__init__()
        parts = urlsplit(proxy)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._login = ""
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._login = f"Proxy-Authorization: Basic {base64.b64encode(login.encode()).decode()}\r\n"

    async def connect(  # type: ignore[override]
        self,
        host: str,
        port: int,
        *,
        ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
        max_buffer_size: int | None = None,
        timeout: float | None = None,
        **_: object,  # how to reach `host` directly
    ) -> IOStream:
        """Return a connection to `host`, which the proxy alone has to know, within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                stream = await self._reach(max_buffer_size)
                try:
                    await self._ask(stream, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                except BaseException:
                    stream.close()
                    raise
                return await stream.start_tls(False, ssl_options, server_hostname=host) if ssl_options else stream
        except TimeoutError as error:
            raise HTTPTimeoutError("Timeout on the way through the HTTP proxy") from error

    async def _reach(self, max_buffer_size: int | None) -> IOStream:
        try:
            return await super().connect(self._host, self._port, max_buffer_size=max_buffer_size)
        except TimeoutError:
            raise
        except OSError as error:
            cause = getattr(error, "real_error", None) or error
            raise ProxyError(f"is not reached ({type(cause).__name__})") from error

    async def _ask(self, stream: IOStream, target: str) -> None:
        try:
            await stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{self._login}\r\n".encode())
            answer = await stream.read_until(b"\r\n\r\n", max_bytes=LARGEST_ANSWER)
        except StreamClosedError as error:
            raise ProxyError("closes the connection") from error
        status = re.match(rb"HTTP/1\.[01] (\d{3})\b", answer)
        if not status or not status[1].startswith(b"2"):
            raise ProxyError(f"answers {status[1].decode() if status else 'something else than HTTP'}")


def client(proxy: str) -> SimpleAsyncHTTPClient:
    """Return a client of its own, whose every connection goes through the proxy."""
    made = SimpleAsyncHTTPClient(force_instance=True)
    made.tcp_client = Tunnel(proxy)
    return made
