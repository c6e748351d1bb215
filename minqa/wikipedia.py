"""A MediaWiki dump → its articles, as plain text with the titles of sections."""

import bz2
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from minqa.errors import InputError, first_line
from minqa.records import Article, Record
from minqa.text import well_formed

# The canonical names, which every wiki knows beside its own.
FILES = frozenset(["file", "image", "category"])
# Tags whose content is no prose.
_DROPPED = frozenset(
    "ce chem gallery graph hiero imagemap mapframe maplink math ref references score style table "
    "templatestyles timeline".split()
)
_LANGUAGE = re.compile(r"([a-z]{2,3}(-[a-z]+)*|simple):")
# Quotes that mean bold and italics, switches, and brackets whose content was dropped.
_LEFT_OVER = re.compile(r"'{2,}|__[A-Z]+__|\(\s*[,;:]*\s*\)|\[\s*\]")


def read_dump(path: Path) -> Iterator[tuple[Record, float]]:
    """Articles of a dump as they are written, in wikitext, and how much of the file is read, 0 to 1.

    Of all pages, redirects and other namespaces than that of articles are left out; of several revisions of a
    page the last one counts. Memory does not grow with the dump.

    Args:
        path: `.xml`, or `.xml.bz2` of one stream or of many.

    Raises:
        InputError: the file cannot be read, is no dump, or ends too early or is broken, when that is reached.
    """
    with _opened(path) as (dump, root, file):
        size = path.stat().st_size
        for page in dump:
            if page.namespace == 0 and not page.redirect:
                text = ""
                for revision in page:
                    text = revision.text or ""
                if not text.lstrip()[:9].lower().startswith("#redirect"):
                    record = Record(str(page.id), well_formed(page.title), well_formed(text))
                    yield record, min(file.tell() / size, 1)
            root.clear()  # of the pages so far, which mwxml only empties


def file_namespaces(path: Path) -> frozenset[str]:
    """What a dump calls the namespaces of files and categories, in lower case. Raises as `read_dump` does."""
    with _opened(path) as (dump, _, _):
        spaces = dump.site_info.namespaces or []
        return FILES | {space.name.lower() for space in spaces if space.id in (6, 14)}


def plain(record: Record, files: Collection[str] = FILES) -> Article:
    """Wikitext → text without templates, tables, references, files and formulas.

    Args:
        record: as `read_dump` yields it.
        files: what the wiki calls files and categories; links to them are no text.
    """
    from mwparserfromhell import nodes, parse
    from mwparserfromhell.parser import ParserError

    try:
        # Italics and bold are left to a pattern: the parser tries every way to pair them.
        found = parse(record.text, skip_style_tags=True).nodes
    except ParserError:  # it gave up: better the text with its mark-up than none
        found = [nodes.Text(record.text)]
    sections, title = [], ""
    pieces: list[str] = []
    for node in found:
        if isinstance(node, nodes.Heading):
            sections.append((title, _tidy("".join(pieces))))
            title, pieces = _tidy(_text(node.title, files)), []
        else:
            pieces.append(_node_text(node, files))
    sections.append((title, _tidy("".join(pieces))))
    text, places = "", []
    for title, body in sections:
        if body:
            text += "\n" if text else ""
            places.append((len(text), title))
            text += body
    return Article(record.id, record.title, text, tuple(places))


def _text(code: Any, files: Collection[str]) -> str:
    return "".join(_node_text(node, files) for node in code.nodes) if code else ""


def _node_text(node: Any, files: Collection[str]) -> str:
    from mwparserfromhell import nodes

    match node:
        case nodes.Text():
            return node.value
        case nodes.Wikilink():
            title = str(node.title).strip()
            space = title.partition(":")[0].strip().lower()
            if space in files or (node.text is None and _LANGUAGE.match(title)):
                return ""
            return title.removeprefix(":") if node.text is None else _text(node.text, files)
        case nodes.ExternalLink():
            return _text(node.title, files) if node.brackets else str(node.url)
        case nodes.Tag():
            tag = str(node.tag).strip().lower()
            if tag in _DROPPED:
                return ""
            return "\n" if tag == "br" else _text(node.contents, files)
        case nodes.Heading():
            return f"\n{_text(node.title, files)}\n"
        case nodes.HTMLEntity():
            return node.normalize()
        case _:  # templates, their arguments, comments
            return ""


def _tidy(text: str) -> str:
    """One line a paragraph, single spaces, no empty line."""
    # An entity may stand for half a character.
    lines = [" ".join(line.split()) for line in _LEFT_OVER.sub("", well_formed(text)).split("\n")]
    return "\n".join(line.replace(" ,", ",").replace(" .", ".") for line in lines if line)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """mwxml's view of a dump, the XML element that collects its pages, and the file, to ask for its place."""
    from mwxml import Dump
    from mwxml.element_iterator import ElementIterator
    from mwxml.errors import MalformedXML

    try:
        with open(path, "rb") as file:
            content = bz2.BZ2File(file) if path.suffix == ".bz2" else file
            root = ElementIterator.from_file(content)
            if root.tag != "mediawiki":
                raise InputError(
                    f"{path} is no MediaWiki dump: it begins with <{root.tag}> instead of <mediawiki>."
                )
            yield Dump.from_element(root), root.element, file
    except InputError:
        raise
    except EOFError:
        raise InputError(f"{path} is cut short: fetch it again; what came before is whole.") from None
    except (ParseError, MalformedXML, ValueError, AttributeError, TypeError) as error:
        reason = first_line(error)[:80]
        raise InputError(f"{path} is no MediaWiki dump, or is broken: {reason}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or 'it is no bzip2 file'}.") from None
