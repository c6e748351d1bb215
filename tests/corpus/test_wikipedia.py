"""Dumps → articles: what is kept, what is dropped, and what is told of a broken one."""

import bz2
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest

import minqa
from minqa.corpus.articles import Article
from minqa.corpus.readers import open_corpus
from minqa.corpus.wikipedia import plain, read_dump

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de">
<siteinfo><sitename>Wiki</sitename><dbname>dewiki</dbname><namespaces>
<namespace key="0" case="first-letter" /><namespace key="1" case="first-letter">Diskussion</namespace>
<namespace key="6" case="first-letter">Datei</namespace>
<namespace key="14" case="first-letter">Kategorie</namespace></namespaces></siteinfo>
"""


def page(title, text, *, number=1, space=0, redirect=""):
    revision = f"<revision><id>{number}</id><text xml:space='preserve'>{text}</text></revision>"
    return (
        f"<page><title>{title}</title><ns>{space}</ns><id>{number}</id>{redirect}"
        f"<revision><id>0</id><text>earlier</text></revision>{revision}</page>\n"
    )


PAGES = [
    page("War", "[[Datei:a.png|thumb|a [[caption]]]] A '''war''' of [[world|worlds]].", number=7),
    page("Diskussion:War", "talk", number=8, space=1),
    page("Krieg", "#REDIRECT [[War]]", number=9, redirect='<redirect title="War" />'),
    page("Guerre", " #redirect [[War]]", number=10),
    page("Theory &amp; practice", "A theory.\n== Use ==\nWho?", number=11),
    page("Empty", "{{stub}}", number=12),
]


@pytest.fixture
def dump(tmp_path):
    def write(*pages, name="dump.xml", head=HEAD, tail="</mediawiki>"):
        content = (head + "".join(pages) + tail).encode()
        if name.endswith(".bz2"):  # many streams, as the multistream dumps are
            half = len(content) // 2
            content = bz2.compress(content[:half]) + bz2.compress(content[half:])
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["dump.xml", "dump.xml.bz2"])
def test_articles_alone_are_read_by_their_last_revision(dump, name):
    corpus = open_corpus(dump(*PAGES, name=name))
    assert list(corpus.articles()) == [
        ("7", "War", "A war of worlds.", ((0, ""),)),
        ("11", "Theory & practice", "A theory.\nWho?", ((0, ""), (10, "Use"))),
        ("12", "Empty", "", ()),
    ]
    assert corpus.clean
    read = [part for _, part in corpus.read()]
    assert read == sorted(read) and 0 < read[-1] <= 1


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("a {{convert|5|km|{{x}}}} b <!-- no --> c", "a b c"),
        ("{| class=x\n| cell || cell\n|}after", "after"),
        ("x<ref name=a>no {{cite}}</ref> y<ref name=a /> z", "x y z"),
        ("<math>x^2</math> is <b>bold</b>, ''it'' '''''both''''' <br/>line", "is bold, it both\nline"),
        ("[[File:a.jpg|thumb|x [[link]]]][[Image:b.png]][[Category:C]] [[:Category:C]]", "Category:C"),
        ("[[a (b)|a]] [[c]]s [[de:Krieg]] [[wikt:war|war]]", "a cs war"),
        ("[http://x.org a title] [http://y.org] http://z.org", "a title http://z.org"),
        ("* one\n* two\n# three\n: four", "one\ntwo\nthree\nfour"),
        ("a&nbsp;&amp;&nbsp;b&mdash;c", "a & b—c"),
        ("x ({{IPA|x}}) y ( ; ) __NOTOC__ z", "x y z"),
        ("<nowiki>[[a]]</nowiki> <gallery>a.jpg</gallery>", "[[a]]"),
        ("a\n\n\n\nb", "a\nb"),
        ("half &#xD800; a character", "half \ufffd a character"),
        ("[[unclosed and {{unclosed", "[[unclosed and {{unclosed"),
        ("&lt;script>alert(1)&lt;/script>", "<script>alert(1)</script>"),
    ],
)
def test_what_is_no_prose_is_dropped(wikitext, text):
    assert plain(Article("1", "T", wikitext)).text == text


def test_sections_say_where_they_begin():
    wikitext = "lead\n== '''One''' ==\na\n=== Two ===\n{{x}}\n== Three<ref>r</ref> ==\nb"
    article = plain(Article("1", "T", wikitext))
    assert article.text == "lead\na\nb"
    assert article.sections == ((0, ""), (5, "One"), (7, "Three"))


def test_memory_does_not_grow_with_the_pages(dump):
    path = dump(*[page(f"T{i}", "text", number=i) for i in range(20_000)])
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_dump(path)) == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6, "empty elements of all pages would take more"


def test_broken_dumps_are_told_when_that_is_reached(dump, tmp_path):
    whole = dump(*[page(f"T{i}", "text " * 500, number=i) for i in range(60)], name="a.xml.bz2").read_bytes()
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    read = []
    with pytest.raises(minqa.InputError, match="is cut short: fetch it again"):
        read.extend(record for record, _ in read_dump(cut))
    malformed = dump(PAGES[0], "<page><title>x</page>")
    with pytest.raises(minqa.InputError, match="is no MediaWiki dump, or is broken: mismatched tag"):
        list(read_dump(malformed))
    with pytest.raises(minqa.InputError, match="is broken: no element found"):
        list(read_dump(dump(PAGES[0], tail="")))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.xml", b"<!DOCTYPE html><html><body><p>Not found<br></body></html>", "is no MediaWiki dump"),
        ("a.xml", b"<html><body>404</body></html>", "begins with <html> instead of <mediawiki>"),
        ("a.xml", b"", "is no MediaWiki dump, or is broken: no element found"),
        ("a.xml", b"\xff\xfe\x00", "is no MediaWiki dump, or is broken"),
        (
            "a.xml",
            f"{HEAD}<page><title/><ns>0</ns><id>1</id></page></mediawiki>".encode(),
            "is no MediaWiki dump, or is broken",
        ),
        ("a.xml", b"<mediawiki></mediawiki>", "is no MediaWiki dump, or is broken"),
        ("a.xml.bz2", b"<html></html>", "cannot be read: it is no bzip2 file"),
        ("a.xml.bz2", b"", "is cut short"),
    ],
)
def test_what_is_no_dump_is_refused(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(minqa.InputError, match=sentence) as raised:
        list(open_corpus(tmp_path / name).articles())
    assert "\n" not in str(raised.value)


def test_the_real_excerpt_holds_106_articles():
    spec = find_spec("gensim")
    if spec is None:
        pytest.skip("gensim, whose wheel carries a dump, is not installed")
    [path] = Path(spec.submodule_search_locations[0]).glob("test/test_data/enwiki*-shortened.bz2")
    articles = list(open_corpus(path).articles())
    assert len(articles) == 106 and all(article.text for article in articles)
    assert articles[0].title == "Anarchism" and "[[" not in articles[0].text and "{{" not in articles[0].text
