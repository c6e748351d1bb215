"""What the page's server refuses: what is not the page, other sites, and more than it can do."""

import asyncio
import threading

import httpx
import pytest

from minqa.app import browser
from minqa.app.browser import Page
from minqa.app.work import Search

OWN = "http://127.0.0.1:7860"


@pytest.fixture
def make(tiny):
    return lambda host="127.0.0.1", proxy="": Page([Search(tiny)], host, proxy)


def client(page, at=OWN, visitor="10.0.0.1"):
    return httpx.AsyncClient(transport=httpx.ASGITransport(page.app, client=(visitor, 1)), base_url=at)


def ask(page, path="/", method="GET", at=OWN, **how):
    async def run():
        async with client(page, at) as visitor:
            return await visitor.request(method, path, **how)

    return asyncio.run(run())


def test_the_page_cannot_be_framed_and_runs_no_script_but_its_own(make):
    for path, status in (("/", 200), ("/?tab=nothing", 400), ("/?q=x&layer=9", 400)):
        answer = ask(make(), path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy and "default-src 'none'" in policy
        assert "script-src 'sha256-" in policy and "unsafe-eval" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"), ("PUT", "/"), ("DELETE", "/"), ("POST", "/upload"), ("GET", "/openapi.json"),
        ("GET", "/docs"), ("GET", "/config"), ("GET", "/file=/etc/passwd"), ("GET", "/../pyproject.toml"),
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_page(make, method, path):
    assert ask(make(), path, method, content=b"x").status_code in (404, 405)


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
        ("Box.example", "http://box.example:7860", 200),
    ],
)
def test_a_name_that_is_not_its_own_is_refused(make, host, at, status):
    answer = ask(make(host), at=at)
    assert answer.status_code == status
    assert ("The page is not at" in answer.text) == (status == 403)


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "a]b"}, {"origin": "http://["}])
def test_what_is_no_address_is_refused(make, headers):
    for host in ("127.0.0.1", "0.0.0.0"):
        assert ask(make(host), headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": OWN}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:7861"}, 403),
        ({"sec-fetch-site": "same-origin", "sec-fetch-dest": "empty"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-dest": "document"}, 200),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}, 200),  # a link that is followed
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "image"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-dest": "empty"}, 403),
    ],
)
def test_another_site_may_not_ask(make, headers, status):
    answer = ask(make(), headers=headers)
    assert answer.status_code == status
    assert ("Another site may not ask the page." in answer.text) == (status == 403)


def test_a_reverse_proxy_shows_it_under_its_own_name(make):
    page = make(proxy="https://example.org/minqa")
    for at in ("http://example.org", OWN):
        assert ask(page, at=at, headers={"origin": "https://example.org"}).status_code == 200
    assert ask(page, at="http://evil.example").status_code == 403


@pytest.fixture
def slow(make, monkeypatch):
    """A page that answers one request at a time, when it is told to, and notes what it begins."""
    monkeypatch.setattr(browser.os, "cpu_count", lambda: 1)
    page, page.begun, page.done = make(), [], threading.Event()

    def show(parameters):
        if page.tabs.is_empty(parameters):
            return 200, "empty"
        page.begun.append(parameters["q"])
        assert page.done.wait(60)
        return 200, "shown"

    page.tabs.show = show
    yield page
    page.done.set()


def test_a_visitor_has_a_share_and_the_queue_a_length(slow, monkeypatch):
    monkeypatch.setattr(browser, "MAX_WAITING", 6)
    monkeypatch.setattr(browser, "MAX_WAITING_OF_ONE", 4)

    async def run():
        asked = []
        for visitor, number in (("greedy", 6), ("second", 1), ("third", 1), ("fourth", 1)):
            for _ in range(number):
                asked.append(asyncio.create_task(client(slow, visitor=visitor).get(f"/?q={visitor}")))
                await asyncio.sleep(0.01)
        assert slow.begun == ["greedy"]
        slow.done.set()
        answers = [await one for one in asked]
        late, full = (
            "Your last questions are still waiting.",
            "Too many visitors ask at once: try again soon.",
        )
        assert [answer.status_code for answer in answers] == [200] * 4 + [503] * 2 + [200] * 2 + [503]
        assert all(late in answer.text for answer in answers[4:6]) and full in answers[8].text
        assert slow.begun == ["greedy", "second", "third", "greedy", "greedy", "greedy"], "one of each first"
        assert not slow.waiting and not slow.shares, "nothing is kept of who has left"
        assert (await client(slow, visitor="greedy").get("/?q=greedy")).status_code == 200

    asyncio.run(run())


def begin(page, visitor, leaves_after=None):
    """A request whose visitor leaves after so many seconds, and what is sent to him."""
    gone, sent = asyncio.Event(), []

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": f"q={visitor}".encode()}
    scope |= {"client": (visitor, 1), "headers": [(b"host", b"localhost:7860")]}
    if leaves_after:
        asyncio.get_running_loop().call_later(leaves_after, gone.set)
    return asyncio.create_task(page.app(scope, receive, send)), sent


def test_who_has_gone_counts_until_what_was_begun_is_done(slow):
    async def run():
        first, _ = begin(slow, "first", leaves_after=0.02)
        await asyncio.sleep(0.1)
        assert slow.begun == ["first"] and slow.waiting == {"first": 1} and slow.shares["first"].locked()
        assert (await client(slow).get("/")).status_code == 200, "there is nothing to compute"
        slow.done.set()
        await asyncio.wait_for(first, 2)
        assert not slow.waiting and not slow.shares

    asyncio.run(run())


def test_what_nobody_waits_for_is_not_begun(slow):
    async def run():
        first, answered = begin(slow, "first")
        await asyncio.sleep(0.01)
        second, _ = begin(slow, "second", leaves_after=0.05)
        third, also = begin(slow, "third")
        await asyncio.wait_for(second, 2)
        assert not first.done() and set(slow.waiting) == {"first", "third"}
        slow.done.set()
        await asyncio.gather(first, third)
        assert slow.begun == ["first", "third"] and not slow.waiting and not slow.shares
        assert answered[0]["status"] == also[0]["status"] == 200

    asyncio.run(run())
