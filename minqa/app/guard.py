"""What the page's server lets in: requests of its own page, each small, and a few of a visitor at a time."""

import asyncio
import json
import os
import re
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minqa.app.tabs import error_html

# All that the page asks its server for.
SHOWN = re.compile(r"/|/config|/theme\.css|/favicon\.ico|/gradio_api/startup-events|/(assets|static)/.+")
ASKED = "/gradio_api/run/predict"
MAX_BYTES = 64 * 1024  # of a request: texts of 2,000 characters, escaped
# Requests that wait, of everyone and of one visitor, who may be several behind one address.
MAX_WAITING = 64
MAX_WAITING_OF_ONE = 16
HEADERS = {
    # A browser that shows the page asks no other host for anything, and no other page may frame it.
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Guard:
    """Refuses what is not the page's own, and puts what is in a queue.

    Args:
        app: the page's server.
        functions: how many values each function of the page takes and returns, by its number.
        host: where the server listens.
        proxy: the address that a reverse proxy shows the page at, or "".
    """

    def __init__(self, app: ASGIApp, functions: Mapping[int, tuple[int, int]], host: str, proxy: str):
        self.app, self.functions, self.host, self.proxy = app, functions, host, urlsplit(proxy).netloc
        cores = os.cpu_count() or 1
        self.free = asyncio.Semaphore(cores)
        # Nobody stands in the common queue more often than that, so that another's turn comes soon.
        self.shares: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(cores))
        self.waiting: Counter[str] = Counter()  # requests of each visitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = Request(scope, receive)
        if refusal := self.refusal(request):
            return await refuse(403, refusal)(scope, receive, answer)
        if request.method != "POST":
            return await self.app(scope, receive, answer)
        body = await read(request)
        outputs = self.outputs(body)
        if not outputs:
            return await refuse(400, "This is no request of the page.")(scope, receive, answer)
        await self.wait(scope, receive, answer, body, outputs)

    def refusal(self, request: Request) -> str:
        """Why a request is none of the page's; "" if it may be one."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if request.scope["type"] != "http" or not self.is_own(host):
            return f"The page is not at {host}."  # such as a name that another site has pointed here
        if origin is not None and urlsplit(origin).netloc not in {host, self.proxy or host}:
            return "Another site may not ask the page."
        path, method = request.scope["path"].removeprefix(request.scope.get("root_path", "")), request.method
        if not (path == ASKED if method == "POST" else method in ("GET", "HEAD") and SHOWN.fullmatch(path)):
            return "The page has no use for this."
        return ""

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server: by a name of its own, or by an address."""
        name = urlsplit(f"//{host}").hostname or ""
        if host == self.proxy or name in ("localhost", "127.0.0.1", "::1", self.host):
            return True
        if self.host in ("localhost", "127.0.0.1", "::1"):
            return False
        return is_address(name) or name in (socket.gethostname().lower(), socket.getfqdn().lower())

    def outputs(self, body: bytes) -> int:
        """How many values a request asks for; 0 if no function of the page takes such values."""
        try:
            asked = json.loads(body)
            inputs, outputs = self.functions[asked["fn_index"]]
            return outputs if isinstance(asked["data"], list) and len(asked["data"]) == inputs else 0
        except (ValueError, KeyError, TypeError, RecursionError):
            return 0

    async def wait(self, scope: Scope, receive: Receive, send: Send, body: bytes, outputs: int) -> None:
        """Answer when it is a request's turn, if somebody still waits for it."""
        visitor = scope["client"][0] if scope.get("client") else ""
        if self.waiting[visitor] >= MAX_WAITING_OF_ONE:
            return await busy("Your last questions are still waiting.", outputs)(scope, receive, send)
        if self.waiting.total() >= MAX_WAITING:
            sentence = "Too many visitors ask at once: try again soon."
            return await busy(sentence, outputs)(scope, receive, send)
        parts, begun = [{"type": "http.request", "body": body}], False
        gone = asyncio.ensure_future(receive())  # all that still comes is that the visitor leaves

        async def replay() -> Message:
            return parts.pop() if parts else await asyncio.shield(gone)

        async def run() -> None:
            nonlocal begun
            async with self.shares[visitor], self.free:
                begun = True
                await self.app(scope, replay, send)

        self.waiting[visitor] += 1
        task = asyncio.ensure_future(run())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not begun:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        finally:
            gone.cancel()
            self.waiting[visitor] -= 1
            if not self.waiting[visitor]:
                del self.waiting[visitor], self.shares[visitor]


async def read(request: Request) -> bytes:
    """The body of a request; empty if it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return b""
    return body


def refuse(status: int, sentence: str) -> Callable:
    """The answer to what the page never asks."""
    return JSONResponse({"detail": sentence}, status)


def busy(sentence: str, outputs: int) -> Callable:
    """A sentence that the page shows where it waits for one value; where it waits for several, nothing."""
    nothing = {"__type__": "update"}
    return JSONResponse({"data": [error_html(sentence)] if outputs == 1 else [nothing] * outputs})


def is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
