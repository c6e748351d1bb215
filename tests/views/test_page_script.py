"""What pointing and clicking do, in a real browser: Chromium, headless."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_heatmap import vectors
from test_look import planted
from test_terminal import alone, result

from minqa.heatmap import heat_map
from minqa.views import html
from minqa.views.view import Heads, Shading

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ALL = ["ran 0.80", "who 0.80", "ran 1.00", "ran 0.89", None]
WHO = ["who 0.60", "who 0.80", "who 0.00", "who 0.45", None]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of one heat map, with a shading of the same passage inside its block."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    heat = heat_map(
        vectors("who ran ?", [[1, 0], [0, 1], [3, 4]]),
        vectors("the fox ran off .", [[3, 4], [4, 3], [0, 1], [1, 2], [3, 4]]),
    )
    influence = Shading("Influence", heat.passage, np.array([1, -1, 0.5, 0, 0], np.float32)).html()
    block = alone([replace(result("fox", [[1, 0]]), heat_map=heat)]).html(more=[influence])
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html.document("who ran ?", block, ["settings"]), "utf-8")
    with sync_api.sync_playwright() as playwright:
        flags = [f"--{flag}" for flag in ("no-sandbox", "disable-gpu", "disable-background-networking")]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(path.as_uri())
        yield page
        browser.close()
        assert errors == []


def words(page, line):
    return page.locator(f"body > .minqa > .{line} b").all()


def titles(page):
    return [word.get_attribute("title") or None for word in words(page, "passage")]


def partners(page):
    return [word.inner_text().split("\n")[0] for word in page.locator("b.partner").all()]


def test_pointing_at_a_query_word_shades_the_passage_by_it_and_a_click_keeps_it(page):
    assert titles(page) == ALL
    who, ran, mark = words(page, "query")
    who.hover()
    assert titles(page) == WHO
    assert words(page, "passage")[2].get_attribute("style") is None
    mark.hover()
    assert titles(page) == ALL, "a word without weight shades nothing"
    who.click()
    page.mouse.move(0, 0)
    assert titles(page) == WHO
    assert [word.get_attribute("aria-pressed") for word in (who, ran, mark)] == ["true", "false", None]
    who.focus()
    page.keyboard.press("Enter")
    page.mouse.move(0, 0)
    assert titles(page) == ALL


def test_pointing_at_a_passage_word_outlines_its_partner(page):
    for number, partner in enumerate(["ran", "who", "ran", "ran", None]):
        words(page, "passage")[number].hover()
        assert (
            [word.startswith(partner) for word in partners(page)] == [True] if partner else not partners(page)
        )
    page.mouse.move(0, 0)
    assert not partners(page)


def test_a_block_leaves_the_shading_inside_it_alone(page):
    words(page, "query")[0].hover()
    inside = page.locator(".minqa .minqa .passage b").all()
    assert [word.get_attribute("title") for word in inside] == ["+1", "-1", "+0.5", "+0", "+0"]


def test_a_head_is_picked_from_all_of_them(page, tmp_path):
    evil = "<img src=x>"
    weights = np.array([[1, 0, 0, 0], [0.7, 0, 0.3, 0], [0, 0.96, 0.04, 0], [0, 0, 0, 1]])
    heads = Heads(planted(["the", evil], weights))
    path = tmp_path / "heads.html"
    path.write_text(html.document("heads", heads.html(), []), "utf-8")
    page.goto(path.as_uri())
    grid = page.locator(".heads svg[data-layer]")
    grid.hover(position={"x": 20, "y": 36})  # of 58 pixels for four parts
    assert grid.locator("title").text_content() == f"layer 1, head 0: {evil} → the 0.96"
    grid.focus()
    page.keyboard.press("Enter")
    chosen = page.locator(".heads .chosen")
    assert chosen.locator("h2").inner_text() == "Layer 1, head 0"
    assert chosen.locator("path").count() == 3 and chosen.locator("circle").count() == 2
    assert chosen.locator("tbody tr").count() == 4 and not chosen.locator("img").count()
    cell = chosen.locator("tbody tr").nth(2).locator("td").nth(1)
    assert cell.get_attribute("title") == f"{evil} · the 0.96" and "background" in cell.get_attribute("style")
    assert chosen.locator("tbody tr").nth(2).locator("td").nth(2).get_attribute("style") is None
