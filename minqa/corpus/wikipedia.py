"""A MediaWiki dump → its articles in wikitext, and wikitext → plain text, which mwparserfromhell parses."""

import calendar
import locale
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from minqa.corpus.articles import Article, Row, opened
from minqa.files.checkpoint import first_line
from minqa.files.extras import needed
from minqa.text import InputError, well_formed

# The names of the namespaces of files and categories that every wiki knows beside its own.
FILE_NAMESPACES = frozenset(["file", "image", "media", "category"])
_FILE = re.compile(
    r":.*\.(jpe?g|png|svg|gif|tiff?|webp|xcf|pdf|djvu|og[gvax]|webm|mp[34]|midi?|flac|wav|stl)$"
)
# Tags whose content is no prose, and those whose content is no mark-up.
DROPPED_TAGS = frozenset(
    "del gallery graph hiero imagemap includeonly mapframe maplink ref references score style table "
    "templatedata templatestyles timeline".split()
)
LITERAL_TAGS = frozenset("nowiki pre source syntaxhighlight".split())
# What MediaWiki takes out before it reads anything else, up to the first end. Most are references, whose
# templates would be half of the parser's work. HTML's own tags, which may nest, are left to the parser.
_TAKEN_OUT = re.compile(
    rf"<!--.*?(?:-->|\Z)|<({'|'.join(sorted(DROPPED_TAGS - {'del', 'table'} | LITERAL_TAGS | {'math'}))})"
    r"(?=[\s/>])(?:[^<>]*/>|[^<>]*>.*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
# Prefixes of links to the same article in other languages, which a page lists at its side.
_LANGUAGES = {re.split("[._@]", name)[0] for name in locale.locale_alias} | {
    *"arz ceb min simple sh war".split()
}
_SWITCHES = re.compile(
    r"__(NOTOC|FORCETOC|TOC|NOEDITSECTION|NEWSECTIONLINK|NONEWSECTIONLINK|NOGALLERY|HIDDENCAT|NOINDEX|INDEX|"
    r"NOCONTENTCONVERT|NOCC|NOTITLECONVERT|NOTC|STATICREDIRECT|DISAMBIG)__"
)
_VARIANT = re.compile(r"-\{(?!\{)([^{}]*)\}-")
# Stands where something was dropped; no Unicode text holds it. Brackets that held nothing else go as well.
_GAP = "\ufdd0"
_GAPS = re.compile(f"{_GAP}(?: *{_GAP})*")
_EMPTY_BRACKETS = re.compile(f" ?[(\\[][ ,;:]*{_GAP}[ ,;:{_GAP}]*[)\\]]")
_SPACE_BEFORE_STOP = re.compile(f" *{_GAP} *(?=[,.;:)](?:\\s|$))")
_SUPERSCRIPTS = str.maketrans("0123456789+-−n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻ⁿ")
# The parser goes back for each bracket or tag that is never closed: this many characters take it a second.
MAX_REREAD = 20_000_000


def read_dump(path: Path) -> Iterator[Row]:
    """Articles of a dump in wikitext.

    Redirects, blank pages and pages of other namespaces are left out; of several revisions of a page, the
    last counts. Memory does not grow with the dump.

    Args:
        path: `.xml`, or compressed, in one stream or several.

    Raises:
        InputError: the file cannot be read or is no dump or, once that place is reached, is broken.
    """
    with _dump(path) as (dump, root, read):
        for page in dump:
            if page.namespace == 0 and not page.redirect:
                text = ""
                for revision in page:
                    text = revision.text or ""
                if text.strip() and not text.lstrip()[:9].lower().startswith("#redirect"):
                    fields: Any = {"id": page.id, "title": page.title, "text": text}
                    if is_tangled(text):
                        fields = ValueError("too many of its brackets and tags are never closed")
                    yield Row(fields, f"page {page.id}", read())
            root.clear()  # mwxml empties the elements of past pages, but keeps them


def file_namespaces(path: Path) -> frozenset[str]:
    """A dump's names of the namespaces of files and categories, in lower case. Raises as `read_dump` does."""
    with _dump(path) as (dump, _, _):
        spaces = dump.site_info.namespaces or []
        return FILE_NAMESPACES | {space.name.lower() for space in spaces if space.id in (6, 14)}


@contextmanager
def _dump(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """mwxml's view of a dump, the XML element that collects its pages, and how much of the file was read."""
    mwxml = needed("mwxml", "Reading a MediaWiki dump", "corpus")
    from mwxml.element_iterator import ElementIterator
    from mwxml.errors import MalformedXML

    try:
        with opened(path) as (file, read):
            root = ElementIterator.from_file(file)
            if root.tag != "mediawiki":
                raise InputError(
                    f"{path} is no MediaWiki dump: it begins with <{root.tag}> instead of <mediawiki>."
                )
            yield mwxml.Dump.from_element(root), root.element, read
    except InputError:
        raise
    except (
        ParseError,
        MalformedXML,
        ValueError,
        AttributeError,
        TypeError,
        LookupError,
        AssertionError,
    ) as error:
        reason = first_line(error)[:80]
        raise InputError(f"{path} is no MediaWiki dump, or is broken: {reason}.") from None


def plain(article: Article, files: Collection[str] = FILE_NAMESPACES) -> Article:
    """Wikitext → text without tables, references and files, and without templates but those of `TEMPLATES`.

    Args:
        article: as `read_dump` yields it.
        files: the wiki's names of the namespaces of files and categories; links to these are dropped.
    """
    wikitext = needed("mwparserfromhell", "Reading a MediaWiki dump", "corpus")
    text = _VARIANT.sub(_variant, _TAKEN_OUT.sub(_without, article.text))
    try:
        # Italics and bold are left to a pattern: the parser tries every way to pair them.
        nodes = wikitext.parse(text, skip_style_tags=True).nodes
        sections, pieces = [("", list[str]())], list[str]()
        pieces = sections[0][1]
        for node in nodes:
            if isinstance(node, wikitext.nodes.Heading):
                pieces = []
                sections.append((_tidy(_text(node.title, files)), pieces))
            else:
                pieces.append(_node_text(node, files))
    except (wikitext.parser.ParserError, RecursionError):  # text with its mark-up is better than none
        sections = [("", [text])]
    joined, starts = "", []
    for title, pieces in sections:
        if body := _tidy("".join(pieces)):
            joined += "\n" if joined else ""
            starts.append((len(joined), title))
            joined += body
    return article._replace(text=joined, sections=tuple(starts))


def is_tangled(text: str) -> bool:
    """Whether so much of a wikitext is never closed that it takes more than about a second to parse."""
    unclosed = [
        text.count(begin) - text.count(end) for begin, end in (("{{", "}}"), ("{|", "|}"), ("[[", "]]"))
    ]
    tags = re.findall(r"<(?!br|hr|li|d[dt]|t[dhr]|wbr)[a-z]+[^<>]*(?<!/)>", text, re.IGNORECASE)
    unclosed.append(len(tags) - text.count("</"))
    return sum(max(number, 0) for number in unclosed) * len(text) > MAX_REREAD


def _text(code: Any, files: Collection[str]) -> str:
    return "".join(_node_text(node, files) for node in code.nodes) if code else ""


def _node_text(node: Any, files: Collection[str]) -> str:
    from mwparserfromhell import nodes

    match node:
        case nodes.Text():
            return _SWITCHES.sub("", re.sub("'{2,}", "", node.value))
        case nodes.Wikilink():
            title = str(node.title).strip()
            namespace, colon, _ = title.lower().partition(":")
            is_file = namespace.strip() in files or _FILE.search(title.lower())
            if (
                colon
                and namespace
                and (is_file or (node.text is None and namespace.partition("-")[0] in _LANGUAGES))
            ):
                return _GAP
            return title.removeprefix(":") if node.text is None else _text(node.text, files)
        case nodes.ExternalLink():
            return (_text(node.title, files) or _GAP) if node.brackets else str(node.url)
        case nodes.Tag():
            return _tag_text(node, files)
        case nodes.Heading():
            return f"\n{_text(node.title, files)}\n"
        case nodes.HTMLEntity():
            return node.normalize()
        case nodes.Template():
            return _template_text(node, files)
        case _:  # arguments of templates, comments
            return _GAP


def _tag_text(node: Any, files: Collection[str]) -> str:
    tag = str(node.tag).strip().lower()
    if tag in DROPPED_TAGS:
        return _GAP
    if tag in LITERAL_TAGS:
        return str(node.contents)
    if tag == "math":
        return f"${' '.join(str(node.contents).split())}$"
    text = _text(node.contents, files)
    if tag == "sup" and _GAP not in text and not text.isalpha():  # as 2, but not th
        raised = text.strip().translate(_SUPERSCRIPTS)
        return raised if re.fullmatch("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]*", raised) else f"^({text})"
    return "\n" if tag == "br" else text


def _without(match: re.Match) -> str:
    """Nothing of a comment, a gap for a tag that is dropped, and the others as they are."""
    return "" if match[1] is None else _GAP if match[1].lower() in DROPPED_TAGS else match[0]


def _variant(match: re.Match) -> str:
    """What a reader sees of `-{flags|code:text;code:text}-`: the first text."""
    flags, _, content = match[1].rpartition("|")
    if {*flags} & {*"HT-"}:
        return ""
    first = content.partition(";")[0]
    return re.sub(r"^\s*[a-z]{2,}(-[a-z]+)*\s*:", "", first) if ";" in content else content


def _tidy(text: str) -> str:
    """One line per paragraph, single spaces, no empty line; nothing is left of what was dropped."""
    text = _GAPS.sub(_GAP, well_formed(text))  # an entity may stand for half a character
    text = _SPACE_BEFORE_STOP.sub("", _EMPTY_BRACKETS.sub(_GAP, text)).replace(_GAP, "")
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return "\n".join(line for line in lines if line)


def _template_text(node: Any, files: Collection[str]) -> str:
    """What a template that carries a fact in a sentence shows; nothing of another."""
    name = re.sub(r"[\s_]+", " ", str(node.name)).strip().lower()
    if name.startswith(("formatnum:", "lc:", "uc:")):
        return name.partition(":")[2].strip()
    show = TEMPLATES.get("lang-" if name.startswith("lang-") else name)
    if show is None:
        return _GAP
    values = [_text(param.value, files).strip() for param in node.params if not param.showkey]
    named = {
        str(param.name).strip(): _text(param.value, files).strip() for param in node.params if param.showkey
    }
    values += [named[str(number)] for number in range(len(values) + 1, 9) if str(number) in named]
    return show(values, named) if values else _GAP


Show = Callable[[Sequence[str], dict[str, str]], str]


def _nth(place: int) -> Show:
    return lambda values, named: values[place] if len(values) > place else _GAP


def _convert(values: Sequence[str], named: dict[str, str]) -> str:
    """`5|km` → 5 km, `5|to|10|km` → 5 to 10 km, `5|ft|11|in` → 5 ft 11 in; what it is converted to goes."""
    if len(values) > 3 and (not values[1][:1].isalpha() or values[1] in ("to", "and", "or", "by", "x")):
        return " ".join(values[:4])
    if len(values) > 3 and values[2][:1].isdigit():
        return " ".join(values[:4])
    return " ".join(values[:2])


def _value(values: Sequence[str], named: dict[str, str]) -> str:
    power = f"×10{named['e'].translate(_SUPERSCRIPTS)}" if "e" in named else ""
    error = f" ± {values[1]}" if len(values) > 1 else ""
    unit = named.get("u") or named.get("ul") or ""
    return f"{values[0]}{error}{power} {unit}".strip()


def _date(values: Sequence[str], named: dict[str, str]) -> str:
    """`1969|7|20` → July 20, 1969, or 20 July 1969 with df=yes; what is no number stays as it is."""
    numbers = [int(value) for value in values[:3] if value.isdecimal()]
    if (
        not numbers
        or len(numbers) < min(len(values), 3)
        or not all(1 <= month <= 12 for month in numbers[1:2])
    ):
        return values[0]
    year, month, day = numbers[0], "".join(calendar.month_name[month] for month in numbers[1:2]), numbers[2:]
    if not day:
        return f"{month} {year}".strip()
    return f"{day[0]} {month} {year}" if named.get("df", "").startswith("y") else f"{month} {day[0]}, {year}"


TEMPLATES: dict[str, Show] = {
    name: show
    for names, show in {
        "nowrap,nobr,abbr,small,big,sub,mvar,math,em,strong": _nth(0),
        "lang-,ill,interlanguage link,sic,as written,quote": _nth(0),
        "lang,langx": _nth(1),
        "transl,transliteration": _nth(-1),
        "convert,cvt": _convert,
        "circa,c.": lambda values, named: "c. " + " – ".join(values[:2]),
        "frac,sfrac": lambda values, named: "/".join(values[-2:]),
        "chem,chem2": lambda values, named: "".join(values),
        "birth date,birth date and age,death date,death date and age": _date,
        "start date,start date and age,end date,dob": _date,
        "as of": lambda values, named: f"As of {_date(values, named)}",
        "val": _value,
    }.items()
    for name in names.split(",")
}
