"""What the page's server refuses: what the page has no use for, other sites, and more than it can do."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from minqa.app import guard
from minqa.app.guard import ASKED, Guard

QUESTION = {"fn_index": 3, "data": ["war"]}


async def echo(scope, receive, send):
    """A server that says what it was sent."""
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b"page"
    await PlainTextResponse(body)(scope, receive, send)


def client(app=echo, host="127.0.0.1", at="http://127.0.0.1:7860", visitor="10.0.0.1", proxy=""):
    guarded = app if isinstance(app, Guard) else Guard(app, {3: (1, 1)}, host, proxy)
    transport = httpx.ASGITransport(guarded, client=(visitor, 1))
    return httpx.AsyncClient(transport=transport, base_url=at)


def ask(method, path, *, app=echo, host="127.0.0.1", at="http://127.0.0.1:7860", proxy="", **how):
    async def run():
        async with client(app, host, at, proxy=proxy) as visitor:
            return await visitor.request(method, path, **how)

    return asyncio.run(run())


def test_what_the_page_asks_for_is_answered_and_cannot_be_framed():
    for path in ("/", "/?q=war&k=2", "/config", "/theme.css", "/assets/index.js", "/static/fonts/a.woff2"):
        answer = ask("GET", path)
        assert answer.status_code == 200
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    answer = ask("POST", ASKED, json=QUESTION)
    assert answer.status_code == 200 and answer.json() == QUESTION


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/upload"), ("POST", "/upload"), ("POST", "/gradio_api/queue/join"),
        ("POST", "/"),
        ("GET", "/openapi.json"), ("GET", "/gradio_api/openapi.json"), ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/file=/etc/passwd"), ("GET", "/gradio_api/file=https://example.org/"),
        ("GET", "/gradio_api/proxy=https://example.org/"), ("GET", "/monitoring"), ("PUT", "/"),
        ("DELETE", "/config"), ("GET", "/assets/"), ("GET", "/docs"), ("POST", "/gradio_api/run/predict/"),
    ],
)  # fmt: skip
def test_what_the_page_does_not_ask_for_is_refused(method, path):
    answer = ask(method, path, content=b"x")
    assert answer.status_code == 403 and answer.json()["detail"] == "The page has no use for this."


@pytest.mark.parametrize(
    ("host", "at", "status"),
    [
        ("127.0.0.1", "http://localhost:7860", 200),
        ("127.0.0.1", "http://[::1]:7860", 200),
        ("127.0.0.1", "http://evil.example:7860", 403),
        ("127.0.0.1", "http://127.0.0.1.evil.example", 403),
        ("127.0.0.1", "http://192.168.0.7:7860", 403),
        ("0.0.0.0", "http://192.168.0.7:7860", 200),
        ("0.0.0.0", "http://[fe80::1]:7860", 200),
        ("0.0.0.0", "http://evil.example:7860", 403),
        ("box.example", "http://box.example:7860", 200),
    ],
)
def test_a_name_that_is_not_its_own_is_refused(host, at, status):
    assert ask("GET", "/config", host=host, at=at).status_code == status
    assert ask("POST", ASKED, host=host, at=at, json=QUESTION).status_code == status


def test_another_site_may_not_ask():
    own = {"origin": "http://127.0.0.1:7860"}
    assert ask("POST", ASKED, json=QUESTION, headers=own).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:7861", "http://127.0.0.1"):
        answer = ask("POST", ASKED, json=QUESTION, headers={"origin": origin})
        assert (answer.status_code, answer.json()["detail"]) == (403, "Another site may not ask the page.")


def test_a_reverse_proxy_shows_it_under_its_own_name():
    proxy = "https://example.org/minqa"
    for at in ("http://example.org", "http://127.0.0.1:7860"):
        headers = {"origin": "https://example.org"}
        answer = ask("POST", ASKED, at=at, proxy=proxy, json=QUESTION, headers=headers)
        assert answer.status_code == 200
    assert ask("GET", "/", at="http://evil.example", proxy=proxy).status_code == 403


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"7", b"null", b'{"fn_index": 3}', b'{"data": ["war"]}',
        b"[" * 50_000,
        b'{"fn_index": 4, "data": ["war"]}', b'{"fn_index": 3, "data": []}', b'{"fn_index": 3, "data": "w"}',
        b'{"fn_index": [3], "data": ["war"]}',
        b'{"fn_index": 3, "data": ["' + b"w" * guard.MAX_BYTES + b'"]}',
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(content):
    answer = ask("POST", ASKED, content=content)
    assert answer.status_code == 400 and answer.json()["detail"] == "This is no request of the page."


class Slow:
    """A server that answers when it is told to, and counts whom it serves."""

    def __init__(self):
        self.begun, self.done = [], asyncio.Event()

    async def __call__(self, scope, receive, send):
        self.begun.append(scope["client"][0])
        await self.done.wait()
        await echo(scope, receive, send)


def test_a_visitor_has_a_share_and_the_queue_a_length(monkeypatch):
    monkeypatch.setattr(guard.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(guard, "MAX_WAITING", 6)
    monkeypatch.setattr(guard, "MAX_WAITING_OF_ONE", 4)

    async def run():
        slow = Slow()
        guarded = Guard(slow, {3: (1, 1)}, "127.0.0.1", "")
        asked = []
        for visitor, number in (("greedy", 6), ("second", 1), ("third", 1), ("fourth", 1)):
            for _ in range(number):
                asked.append(asyncio.create_task(client(guarded, visitor=visitor).post(ASKED, json=QUESTION)))
                await asyncio.sleep(0.01)
        assert slow.begun == ["greedy"]
        slow.done.set()
        answers = [await one for one in asked]
        told = [answer.json()["data"][0] for answer in answers]
        late, full = (
            "Your last questions are still waiting.",
            "Too many visitors ask at once: try again soon.",
        )
        late, full = (f'<p class="error" role="alert">{sentence}</p>' for sentence in (late, full))
        assert told == ["war"] * 4 + [late] * 2 + ["war"] * 2 + [full]
        assert slow.begun == ["greedy", "second", "third", "greedy", "greedy", "greedy"], "one of each first"
        assert not guarded.waiting and not guarded.shares, "nothing is kept of who has left"
        assert (await client(guarded, visitor="greedy").post(ASKED, json=QUESTION)).status_code == 200

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_begun(monkeypatch):
    monkeypatch.setattr(guard.os, "cpu_count", lambda: 1)

    async def run():
        slow = Slow()
        guarded = Guard(slow, {3: (1, 1)}, "127.0.0.1", "")

        def begin(visitor, leaves):
            body = b'{"fn_index": 3, "data": ["war"]}'
            messages, gone, sent = [{"type": "http.request", "body": body}], asyncio.Event(), []

            async def receive():
                if messages:
                    return messages.pop()
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http",
                "method": "POST",
                "path": ASKED,
                "query_string": b"",
                "client": (visitor, 1),
            }
            scope["headers"] = [(b"host", b"localhost:7860")]
            if leaves:
                asyncio.get_running_loop().call_later(0.05, gone.set)
            return asyncio.create_task(guarded(scope, receive, send)), sent

        first, answered = begin("first", False)
        await asyncio.sleep(0.01)
        second, refused = begin("second", True)
        third, also = begin("third", False)
        await asyncio.wait_for(second, 1)
        assert refused == [] and not first.done()
        slow.done.set()
        await asyncio.gather(first, third)
        assert slow.begun == ["first", "third"] and not guarded.waiting and not guarded.shares
        assert answered[0]["status"] == also[0]["status"] == 200

    asyncio.run(run())
