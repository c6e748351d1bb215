"""The page in a browser: a form whose address is the state, and the server that answers it."""

import asyncio
import os
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from errno import EACCES, EADDRINUSE
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from anyio import CancelScope, CapacityLimiter, create_task_group, to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from minqa.app.tabs import MAX_CHARACTERS, TABS, State, Tabs, error_html
from minqa.app.work import Search
from minqa.encoder import WEIGHTS
from minqa.inside.features import FEATURES
from minqa.text import InputError
from minqa.views.html import ENVIRONMENT, SCRIPT, STYLE, source_of

SETTINGS = {"k", "answers", "layer", "weights", "rerank", "influence", "model"}  # which are folded away
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
FIRST_PORT = 7860
# Requests that wait or run, of everyone and of one visitor, who may be several behind one address.
MAX_WAITING = 64
MAX_WAITING_OF_ONE = 16

_style, _script = (files("minqa.app").joinpath(f"app.{kind}").read_text("utf-8") for kind in ("css", "js"))
_style, _script = STYLE + _style, SCRIPT + _script
_known: dict[str, Any] = dict(style=_style, script=_script, MAX_CHARACTERS=MAX_CHARACTERS)
_known |= dict(TABS=TABS, WEIGHTS=WEIGHTS, FEATURES=[*FEATURES])
_template = ENVIRONMENT.get_template("app/page.html", globals=_known)
HEADERS = {
    # The page asks no other host for anything, no script but its own runs, and no other page may frame it.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    f"script-src {source_of(_script)}; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Page:
    """The page as a function of its address, for its own visitors, a few at a time.

    Args:
        searches: one per model; the first is asked unless another is chosen.
        host: where the server listens.
        proxy: the address at which a reverse proxy shows the page, or "".
    """

    def __init__(self, searches: Sequence[Search], host: str, proxy: str = ""):
        self.tabs, self.proxy = Tabs(searches), urlsplit(proxy).netloc
        self.host, self.own_names = host, LOOPBACK | {host.lower()}
        if host not in LOOPBACK:
            self.own_names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        cores = os.cpu_count() or 1
        self.cores = CapacityLimiter(cores)
        # Nobody stands in the queue more often than that, so that another's turn comes soon.
        self.shares: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(cores))
        self.waiting: Counter[str] = Counter()  # requests of each visitor
        self.app = Starlette(routes=[Route("/", self.answer)])

    async def answer(self, request: Request) -> HTMLResponse:
        """The page at an address; what is wrong is a sentence on it."""
        if refusal := self.refusal(request):
            return HTMLResponse(error_html(refusal), 403, HEADERS)
        parameters, visitor = dict(request.query_params), request.client.host if request.client else ""
        status, shown, show = 503, "", self.tabs.show
        if self.tabs.is_empty(parameters):
            status, shown = show(parameters)
        elif self.waiting[visitor] >= MAX_WAITING_OF_ONE:
            shown = error_html("Your last questions are still waiting.")
        elif self.waiting.total() >= MAX_WAITING:
            shown = error_html("Too many visitors ask at once: try again soon.")
        else:
            self.waiting[visitor] += 1
            try:
                async with create_task_group() as group:
                    group.start_soon(_cancel_if_gone, request, group.cancel_scope)
                    async with self.shares[visitor]:  # what has begun is finished, whoever has gone
                        status, shown = await to_thread.run_sync(show, parameters, limiter=self.cores)
                    group.cancel_scope.cancel()
            finally:
                self.waiting[visitor] -= 1
                if not self.waiting[visitor]:
                    del self.waiting[visitor], self.shares[visitor]
        return HTMLResponse(self.html(parameters, shown), status, HEADERS)

    def refusal(self, request: Request) -> str:
        """Why a request is refused; "" if it is not."""
        headers, host = request.headers, request.headers.get("host", "")
        origin, foreign = headers.get("origin"), headers.get("sec-fetch-site", "none")
        try:
            name = urlsplit(f"//{host}").hostname or ""
            asked_by = host if origin is None else urlsplit(origin).netloc
            is_own = host == self.proxy or name in self.own_names
            if not is_own and self.host not in LOOPBACK:
                ip_address(name)  # which may be one of this machine's
                is_own = True
        except ValueError:  # this is no address
            is_own, asked_by = False, ""
        if not is_own:
            return f"The page is not at {host}."  # such as a name that another site has pointed here
        follows_link = foreign in ("none", "same-origin") or headers.get("sec-fetch-dest") == "document"
        if asked_by not in (host, self.proxy or host) or not follows_link:
            return "Another site may not ask the page."
        return ""

    def html(self, parameters: dict[str, str], shown: str) -> str:
        """The whole page around what a tab shows."""
        moved, encoder = self.tabs.moved(parameters), self.tabs.encoder(parameters)
        values = vars(State()) | self.tabs.initial(parameters) | moved
        return _template.render(
            tab=values["tab"] if values["tab"] in TABS else State.tab,
            values=values,
            opened=bool(SETTINGS & moved.keys()),
            names=self.tabs.names,
            encoder=encoder,
            shown=shown,
        )


def warm_up(searches: Sequence[Search]) -> None:
    """Compile what the first visitor would wait for when asking."""
    for values in ({}, {"layer": 0}, {"influence": True}):
        Tabs(searches).show({"q": "Who developed the theory of relativity?", **values})


def serve(page: Page, port: int | None) -> str:
    """Start a server in the background, and return its address.

    Raises:
        InputError: there is no such address here, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in page.host else socket.AF_INET
    for number in [port] if port else [*range(FIRST_PORT, FIRST_PORT + 100), 0]:
        try:
            listening = socket.create_server((page.host, number), family=family)
            break
        except (OSError, OverflowError, ValueError, TypeError) as error:  # a name may be none, in many ways
            if port or getattr(error, "errno", None) not in (EACCES, EADDRINUSE):
                at = f"at {page.host}, port {port}" if port else f"at {page.host}"
                raise InputError(f"The page cannot listen {at}: name another --host or --port.") from None
    config = uvicorn.Config(page.app, log_level="warning", lifespan="off", http="h11", ws="none")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=[[listening]], daemon=True).start()
    host = f"[{page.host}]" if family == socket.AF_INET6 else page.host
    return f"http://{host}:{listening.getsockname()[1]}/"


async def _cancel_if_gone(request: Request, scope: CancelScope) -> None:
    """Cancel a scope once the visitor has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
