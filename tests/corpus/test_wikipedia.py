"""Dumps → articles: what is kept, what is dropped, and what is told of a broken one."""

import bz2
import html
import random
import time
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
    assert [article[:4] for article in corpus.articles()] == [
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
        ("a {{infobox|5|km|{{x}}}} b <!-- no --> c", "a b c"),
        ("{| class=x\n| cell || cell\n|}after", "after"),
        ("x<ref name=a>no {{cite}}</ref> y<ref name=a /> z", "x y z"),
        ("<gallery>x^2</gallery> is <b>bold</b>, ''it'' '''''both''''' <br/>line", "is bold, it both\nline"),
        ("[[File:a.jpg|thumb|x [[link]]]][[Image:b.png]][[Category:C]] [[:Category:C]]", "Category:C"),
        ("[[Bild:a.jpg|thumb|x]][[Imagen:b.svg]][[Fichier:c.PNG|d]] [[Talk: a.jpg b]]", "Talk: a.jpg b"),
        (
            "[[a (b)|a]] [[c]]s [[de:Krieg]] [[wikt:war|war]] [[re:publica]] [[zh-yue:x]]",
            "a cs war re:publica",
        ),
        ("[http://x.org a title] [http://y.org] http://z.org", "a title http://z.org"),
        ("* one\n* two\n# three\n: four", "one\ntwo\nthree\nfour"),
        ("a&nbsp;&amp;&nbsp;b&mdash;c", "a & b—c"),
        ("x ({{IPA|x}}; {{audio|y}}) y [<ref>z</ref>] {{cite}}, {{cite}}. __NOTOC__ z", "x y,. z"),
        ("<nowiki>[[a]]</nowiki> <gallery>a.jpg</gallery>", "[[a]]"),
        ("a<ref>{{cite|[[b}} <i> {|</ref> c<REF group=d>e</REF > f <!-- <ref> --> g</ref>", "a c f g</ref>"),
        ("<nowiki><ref>a</ref> <!-- b --></nowiki> c", "<ref>a</ref> <!-- b --> c"),
        ("a <nowiki><!--</nowiki> b <!-- c --> d", "a <!-- b d"),
        ("a " + "<!--" * 20_000, "a"),
        ("a<references><ref>b</ref></references> <del>c<del>d</del>e</del> f <refer>g</refer>", "a f g"),
        ("a\n\n\n\nb", "a\nb"),
        ("half &#xD800; a character", "half \ufffd a character"),
        ("[[unclosed and {{unclosed", "[[unclosed and {{unclosed"),
        ("&lt;script>alert(1)&lt;/script>", "<script>alert(1)</script>"),
        ("a <!-- comment that never ends [[b]]", "a"),
        ("a<!-- one -->b <!-- two", "ab"),
        ("<includeonly>no</includeonly><noinclude>yes</noinclude> <del>no</del><ins>yes</ins>", "yes yes"),
        ("-{zh-hans:计算机; zh-hant:電腦;}- -{a}- -{H|zh-cn:x;zh-tw:y}--{R|b}-", "计算机 a b"),
    ],
)
def test_what_is_no_prose_is_dropped(wikitext, text):
    assert plain(Article("1", "T", wikitext)).text == text


@pytest.mark.parametrize(
    "text",
    [
        "the .NET Framework, a .45 pistol, main() and int[] x , as code has it",
        "“ a ; b ( ; ) [ ]",
        "x __FILE__ __init__ y",
        "1 < 2 and {a} | b",
    ],
)
def test_real_text_is_not_rewritten(text):
    assert plain(Article("1", "T", text)).text == text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        (
            "6.02×10<sup>23</sup>, 5 km<sup>2</sup>, m<sup>−1</sup>, 19<sup>th</sup>",
            "6.02×10²³, 5 km², m⁻¹, 19th",
        ),
        ("e<sup>2x</sup>, H<sub>2</sub>O, x<sup><ref>a</ref></sup>.", "e^(2x), H2O, x."),
        ("<math>E =\n m c^2</math> and <code>f(''x'')</code> <pre>''y''</pre>", "$E = m c^2$ and f(x) ''y''"),
        (
            "{{convert|5|km|mi}}, {{cvt|5|to|10|kg|lb}}, {{Convert|5|ft|11|in|m|abbr=on}}",
            "5 km, 5 to 10 kg, 5 ft 11 in",
        ),
        ("{{convert|5|–|10|m}}, {{convert|5|km|0}}, {{convert|3.5|e6acre}}", "5 – 10 m, 5 km, 3.5 e6acre"),
        (
            "{{lang|fr|''bon''}}, {{lang-de|Krieg}}, {{langx|la|bellum}}, {{transl|ar|ISO|harb}}",
            "bon, Krieg, bellum, harb",
        ),
        (
            "{{nowrap|a {{lang|de|b}}}}, {{abbr|cm|centimetre}}, {{frac|1|2}}, {{chem|H|2|O}}",
            "a b, cm, 1/2, H2O",
        ),
        (
            "{{formatnum:1234}}, {{val|1.5|0.1|e=-3|u=m}}, {{circa|1500}}, {{c.|1500|1510}}",
            "1234, 1.5 ± 0.1×10⁻³ m, c. 1500, c. 1500 – 1510",
        ),
        (
            "{{birth date|1969|7|20}}, {{Death_date and age|1969|7|20|1900|1|2|df=yes}}",
            "July 20, 1969, 20 July 1969",
        ),
        (
            "{{start date|1969|7}}, {{as of|1969}}, {{birth date|c. 1500}}, {{birth date|1969|13|1}}",
            "July 1969, As of 1969, c. 1500, 1969",
        ),
        ("{{nowrap|1=a=b}}, {{lang|2=x|1=de}}, a {{convert}} {{lang|de}} b", "a=b, x, a b"),
        ("he ({{IPA|x}}, {{lang|de|y}}) {{sfn|a|b}}.", "he (, y)."),
    ],
)
def test_what_carries_a_fact_is_kept(wikitext, text):
    assert plain(Article("1", "T", wikitext)).text == text


@pytest.mark.parametrize(
    "piece", ["{|\n", "<b>x ", "<ref>", "<REF>", "<ref name='a/b'>", "{{a|", "[[a|", "{{{a|", "{{a|[[b|<i>"]
)
def test_what_would_hang_the_parser_is_left_out_and_told(dump, piece):
    """Thousands of brackets that are never closed; a few are read."""
    notes = []
    pages = [
        page("T", html.escape(piece * 5000), number=1),
        page("U", html.escape(piece * 9 + "a war"), number=2),
    ]
    corpus = open_corpus(dump(*pages), note=notes.append)
    start = time.monotonic()
    assert [article.id for article in corpus.articles()] == ["2"]
    assert time.monotonic() - start < 3
    [note] = notes
    assert "dump.xml, page 1: too many of its brackets and tags are never closed. It is left out." in note
    with pytest.raises(minqa.InputError, match="page 1: too many"):
        list(open_corpus(dump(*pages)).articles())


def test_what_is_nested_without_end_is_read_as_it_is():
    for opened, closed in (("{{a|", "}}"), ("<b>", "</b>"), ("[[a|", "]]")):
        article = plain(Article("1", "T", f"before {opened * 3000}war{closed * 3000} after"))
        assert article.text.startswith("before") and article.text.endswith("after")


def test_sections_say_where_they_begin():
    wikitext = "lead\n== '''One''' ==\na\n=== Two ===\n{{x}}\n== Three<ref>r</ref> ==\nb"
    article = plain(Article("1", "T", wikitext))
    assert article.text == "lead\na\nb"
    assert article.sections == ((0, ""), (5, "One"), (7, "Three"))


def test_memory_does_not_grow_with_the_pages(dump):
    def peak(number):
        path = dump(*[page(f"T{i}", "text", number=i) for i in range(number)])
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_dump(path)) == number
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = min(peak(500), peak(500)), peak(6_000)
    assert many < few + 1e5, "an empty element of each page would take 5e5"


def test_broken_dumps_are_told_when_that_is_reached(dump, tmp_path):
    whole = dump(*[page(f"T{i}", "text " * 500, number=i) for i in range(60)], name="a.xml.bz2").read_bytes()
    cut = tmp_path / "cut.xml.bz2"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    read = []
    with pytest.raises(minqa.InputError, match="is cut short: fetch it again"):
        read.extend(read_dump(cut))
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
        ("a.xml.bz2", b"<html></html>", "cannot be read: it is no .bz2 file, or is broken"),
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


def test_a_dump_with_a_flipped_bit_is_read_or_told(dump):
    chance, content, told = random.Random(0), dump(*PAGES).read_bytes(), []
    for _ in range(150):
        spoilt = bytearray(content)
        for _ in range(chance.choice([1, 1, 3])):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        path = dump()
        path.write_bytes(spoilt)
        try:
            list(open_corpus(path, note=lambda sentence: None).articles())
        except minqa.InputError as error:
            told.append(str(error))
    assert 10 < len(told) < 140 and not any("\n" in sentence for sentence in told)
    path.write_bytes(b'<?xml version="1.0" encoding="klingon"?>' + content)
    with pytest.raises(minqa.InputError, match="is no MediaWiki dump, or is broken"):
        open_corpus(path)
