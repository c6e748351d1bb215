"""The app in a real browser: Chromium, headless, on this machine alone."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
import uvicorn
from conftest import indexed, make_bert_folder, make_elmo_folder
from starlette.requests import Request
from starlette.responses import Response

import minqa
from minqa.app.tabs import State
from minqa.app.work import Search

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

from minqa.app.browser import Page, serve  # noqa: E402

QUIET = ["no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"]
QUIET += ["disable-background-networking", "disable-component-update"]
EVIL = (
    "world <script>window.owned=1</script> <img src=x onerror='window.owned=2'> "
    "<a href=javascript:owned=3>war</a> ${window.owned=4} {{owned}} <style>*{display:none}</style>"
)
TEXTS = ["the theory of relativity was developed", "a war of the world", EVIL, "who played 7 of 9 ?"]


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    encoders = [minqa.load(make_bert_folder(folder / "bert")), minqa.load(make_elmo_folder(folder / "elmo"))]
    return [
        Search(one, index=indexed(one, TEXTS, folder / f"index{i}", store_tokens=True))
        for i, one in enumerate(encoders)
    ]


@pytest.fixture(scope="module")
def address(searches):
    return serve(Page(searches, "127.0.0.1"), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with sync_api.sync_playwright() as playwright:
        with_flags = [f"--{flag}" for flag in QUIET]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=with_flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    """A fresh page whose requests must all go to the app, and which must have no error of its own."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    asked, errors = [], []
    context.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    hosts = {urlsplit(url).netloc for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert hosts == {urlsplit(address).netloc}, "no request leaves for another host"
    assert not errors
    assert page.evaluate("window.owned") is None
    context.close()


def state(page):
    page.wait_for_timeout(1)  # Playwright learns of a new address when it is waited for
    return dict(parse_qsl(urlsplit(page.url).query))


def shown(page):
    return page.locator("main")


def ask(page, address, question="a war of the world"):
    page.goto(address)
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    shown(page).locator(".passage").first.wait_for()


def backgrounds(page, passage=0):
    words = shown(page).locator(".passage").nth(passage).locator("b")
    return words.evaluate_all("words => words.map(word => word.getAttribute('style'))")


def until(holds, seconds=60):
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def test_the_first_screen_has_examples_to_click(page, address):
    page.goto(address)
    shown(page).get_by_text("Type a question, or click one of the examples.").wait_for()
    page.get_by_text("What is the capital of Egypt?").click()
    shown(page).locator(".passage").first.wait_for()
    assert state(page) == {"q": "What is the capital of Egypt?"}
    page.go_back()
    shown(page).get_by_text("Type a question, or click one of the examples.").wait_for()


def test_ask_shows_heat_and_a_click_on_a_word_shows_its_own(page, address):
    ask(page, address)
    assert shown(page).locator(".passage").count() == 3
    before = backgrounds(page)
    assert any(before)
    word = shown(page).locator(".query b[role]").nth(1)
    word.click()
    page.mouse.move(0, 0)
    until(lambda: state(page).get("word") == "1")
    assert backgrounds(page) != before
    pressed = shown(page).locator(".query b[aria-pressed=true]")
    assert pressed.count() == 3 and set(pressed.evaluate_all("all => all.map(one => one.dataset.text)")) == {
        "war"
    }
    word.click()
    page.mouse.move(0, 0)
    until(lambda: "word" not in state(page))
    assert backgrounds(page) == before


def test_the_keyboard_alone_is_enough(page, address):
    page.goto(address)
    page.get_by_label("Question").focus()
    page.keyboard.type("a war of the world")
    page.keyboard.press("Enter")
    shown(page).locator(".passage").first.wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.query') !== null"):
            break
    page.keyboard.press("Enter")
    until(lambda: state(page).get("word") == "0")
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    page.keyboard.press("Enter")
    until(lambda: state(page).get("map") == "1")
    assert shown(page).locator("details[open] td").count() > 8


def test_fields_answer_when_they_change_and_keep_the_focus(page, address):
    ask(page, address)
    page.get_by_text("How words are compared").click()
    layer = page.get_by_label("Layer (0: embeddings)")
    layer.press("ArrowDown")
    layer.press("Tab")
    shown(page).get_by_text("layer 1 ·").wait_for()
    assert page.evaluate("document.activeElement.id") == "weights"
    page.get_by_label("Weights of words").select_option("none")
    shown(page).get_by_text("weights none").wait_for()
    page.get_by_label("Influence too").check()
    shown(page).get_by_text("Influence of the query").first.wait_for()
    assert state(page) == {"q": "a war of the world", "layer": "1", "weights": "none", "influence": "1"}
    page.get_by_label("Influence too").uncheck()
    until(lambda: "influence" not in state(page))
    assert not shown(page).get_by_text("Influence of the query").count()


def test_an_address_brings_a_view_back(page, address):
    ask(page, address)
    shown(page).locator(".query b[role]").nth(1).click()
    shown(page).locator("summary").nth(1).click()
    page.mouse.move(0, 0)
    until(lambda: state(page).get("map") == "2")
    seen, link = backgrounds(page), page.evaluate("location.search")
    page.goto("about:blank")
    page.goto(address + link)
    shown(page).locator(".passage").first.wait_for()
    until(lambda: backgrounds(page) == seen)
    assert shown(page).locator("details[open]").count() == 1
    assert page.get_by_label("Question").input_value() == "a war of the world"
    assert state(page) == {"q": "a war of the world", "word": "1", "map": "2"}
    page.get_by_label("Question").press("Enter")
    page.wait_for_load_state()
    assert state(page) == {"q": "a war of the world", "word": "1", "map": "2"}, "it is kept"
    page.get_by_label("Question").fill("the theory")
    page.get_by_label("Question").press("Enter")
    until(lambda: state(page) == {"q": "the theory", "map": "2"})
    page.goto(address + "?tab=heads&text=the+war&layer=2&head=3")
    shown(page).get_by_role("heading", name="Layer 2, head 3").wait_for()
    assert page.get_by_label("Head", exact=True).input_value() == "3"


def test_without_scripts_the_form_is_enough(browser, address):
    page = browser.new_context(java_script_enabled=False).new_page()
    ask(page, address)
    assert shown(page).locator(".passage").count() == 3
    page.get_by_text("How words are compared").click()
    page.get_by_label("Passages shown").fill("1")
    page.get_by_role("button", name="Ask", exact=True).click()
    until(lambda: shown(page).locator(".passage").count() == 1)
    page.context.close()


def test_compare_shows_two_models(page, address):
    page.goto(address)
    page.get_by_role("link", name="Compare").click()
    page.get_by_label("Question").fill("a war of the world")
    page.get_by_role("button", name="Compare", exact=True).click()
    columns = shown(page).locator(".side").first.locator(".minqa")
    columns.first.wait_for()
    assert columns.count() == 2
    assert "bert" in columns.nth(0).inner_text() and "elmo" in columns.nth(1).inner_text()
    assert state(page)["tab"] == "compare"


def test_heads_are_looked_at_and_picked_from_the_grid(page, address):
    page.goto(address)
    page.get_by_role("link", name="Heads").click()
    grid = shown(page).locator(".heads svg")
    grid.first.wait_for()
    assert grid.count() == 8
    shown(page).locator('.heads svg[data-layer="2"][data-head="1"]').click()
    shown(page).get_by_role("heading", name="Layer 2, head 1").wait_for()
    until(lambda: state(page).get("layer") == "2" and state(page).get("head") == "1")
    page.get_by_text("Too tired, or too wide?").click()
    shown(page).get_by_text("How far the attention of it moves").wait_for()


def test_units_are_looked_for_and_at(page, address):
    page.goto(address + "?tab=units&text=the+2+wars&unit=7")
    shown(page).get_by_text("feed-forward unit 1.7").wait_for()
    page.get_by_label("and its number (-1: none)").fill("9")
    page.get_by_label("and its number (-1: none)").press("Enter")
    shown(page).get_by_text("feed-forward unit 1.9").wait_for()


def test_an_error_is_a_sentence_on_the_page(page, address):
    page.goto(address)
    page.get_by_label("Question").fill("...")
    page.get_by_role("button", name="Ask", exact=True).click()
    shown(page).get_by_role("alert").wait_for()
    assert shown(page).get_by_role("alert").inner_text() == "The query holds no word."
    page.goto(address + "?q=war&layer=x")
    shown(page).get_by_text(
        "The address says layer=x, but layer is a whole number of at most nine digits."
    ).wait_for()
    assert state(page) == {"q": "war", "layer": "x"}, "it can be mended"
    page.goto(address + "?tab=nothing")
    shown(page).get_by_text("There is no tab nothing").wait_for()


@pytest.mark.parametrize(
    ("view", "sentence"),
    [
        (
            "?tab=units&text=war&unit=100000000000000000000",
            "but unit is a whole number of at most nine digits.",
        ),
        ("?tab=units&text=war&unit=999999999", "There is no feed-forward unit 999999999 in layer 1"),
        ("?tab=heads&text=war&head=-1", "There is no head -1 in layer 1"),
        ("?tab=heads&text=war&layer=99", "There is no head 0 in layer 99"),
        ("?q=war&k=0", "The page shows 1 to 20 passages"),
        ("?q=war&model=gpt&weights=tf", "The model gpt is not loaded here"),
    ],
)
def test_an_address_from_anybody_shows_a_sentence(page, address, view, sentence):
    page.goto(address + view)
    page.get_by_role("alert").get_by_text(sentence).wait_for()


def test_a_refusal_is_a_sentence_on_the_page(page, address, monkeypatch):
    monkeypatch.setattr("minqa.app.browser.MAX_WAITING", 0)
    page.goto(address)
    page.get_by_label("Question").fill("war")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_role("alert").get_by_text("Too many visitors ask at once: try again soon.").wait_for()


def test_odd_values_are_told_without_a_traceback(address, capfd):
    for name in vars(State()):
        for value in (" ", "x", "-1", "\ud800", "war " * 900, "<b>'\"\0"):
            encoded = quote(value, errors="surrogatepass")
            answer = httpx.get(f"{address}?q=war&k=1&{name}={encoded}", timeout=60)
            assert answer.status_code == (400 if '<p class="error"' in answer.text else 200), (name, value)
            assert "<main>" in answer.text, (name, value)
    assert "Traceback" not in capfd.readouterr().err


def test_what_stands_in_a_passage_is_text(page, address):
    ask(page, address, EVIL)
    text = "".join(shown(page).locator(".passage").all_inner_texts())
    for tag in (
        "<script>window.owned=1</script>",
        "onerror='window.owned=2'>",
        "${window.owned=4}",
        "{{owned}}",
    ):
        assert tag in text
    assert not shown(page).locator("script, img, style, .passage a").count()
    shown(page).locator(".query b[role]").nth(1).click()
    shown(page).locator("summary").first.click()
    page.get_by_role("link", name="Heads").click()
    page.get_by_label("Text", exact=True).fill("<img src=x onerror=owned=5>")
    page.get_by_role("button", name="Look").click()
    shown(page).locator(".arcs text").get_by_text("onerror").wait_for()
    assert not shown(page).locator("img").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_all_without_scrolling_sideways(browser, address, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    ask(page, address)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # Words are legible on what is behind them: WCAG's 4.5 to 1.
    measure = """word => {
      const light = colour => {const [r, g, b] = colour.match(/[\\d.]+/g).map(x => x / 255)
        .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b};
      let behind = word;
      while (behind && /^rgba\\(.*, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor))
        behind = behind.parentElement;
      const two = [light(getComputedStyle(word).color),
        light(behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)')];
      return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)}"""
    words = shown(page).locator(".passage b, .query b, .foot").all()
    assert min(word.evaluate(measure) for word in words) >= 4.5
    context.close()


def test_a_slow_visitor_freezes_nobody(page, address, monkeypatch):
    from minqa.app import tabs

    begun, release, search_units = threading.Event(), threading.Event(), tabs.look.search_units

    def slow(*arguments, **options):
        begun.set()
        assert release.wait(120)
        return search_units(*arguments, **options)

    monkeypatch.setattr(tabs.look, "search_units", slow)
    waiting = page.context.new_page()
    waiting.goto(address)
    waiting.evaluate("setTimeout(() => location.search = '?tab=units&text=the+2+wars&feature=position')")
    assert begun.wait(60)
    ask(page, address)
    release.set()
    shown(waiting).get_by_text("units that follow the feature position").wait_for()


def test_ctrl_c_stops_it_at_once(bert_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("a war of the world\n\nthe theory\n")
    arguments = ["--model", bert_folder, "--corpus", tmp_path / "notes.txt", "--cache", tmp_path / "cache"]
    program = "import sys; from minqa.app.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "app", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert re.match(r"The page is at http://127\.0\.0\.1:\d+/; Ctrl-C stops it\.", line), (
            process.stderr.read()
        )
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert time.monotonic() - start < 2
        assert process.stderr.read().endswith("minqa: stopped.\n")


def test_a_reverse_proxy_shows_it_in_a_sub_path(browser, searches):
    async def proxy(scope, receive, send):
        request = Request(scope, receive)
        assert request.url.path.startswith("/minqa")
        place = inner + request.url.path.removeprefix("/minqa").lstrip("/")
        async with httpx.AsyncClient() as client:
            how = {
                "content": await request.body(),
                "headers": request.headers,
                "params": request.query_params,
            }
            answer = await client.request(request.method, place, **how)
        kept = {name: answer.headers[name] for name in ("content-type", "content-security-policy")}
        await Response(answer.content, answer.status_code, kept)(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        outer = f"http://127.0.0.1:{listening.getsockname()[1]}/minqa"
        inner = serve(Page(searches[:1], "127.0.0.1", outer), None)
        server = uvicorn.Server(uvicorn.Config(proxy, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        tab = browser.new_page()
        tab.set_default_timeout(60_000)
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        ask(tab, outer + "/")
        assert shown(tab).locator(".passage").count() == 3 and state(tab) == {"q": "a war of the world"}
        assert not tab.get_by_role("link", name="Compare").count(), "there is one model"
        assert all(url.startswith((outer, "data:", "blob:")) for url in asked)
        tab.close()
        server.should_exit = True
        thread.join(20)


def test_where_it_cannot_listen_is_told(searches, address):
    taken = urlsplit(address).port
    for host, port in (
        ("127.0.0.1", taken),
        ("127.0.0.1", 70_000),
        ("192.0.2.1", None),
        ("no such host", None),
    ):
        with pytest.raises(minqa.InputError, match=re.escape(f"cannot listen at {host}")):
            serve(Page(searches, host), port)
