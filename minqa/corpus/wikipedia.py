"""A MediaWiki dump → its articles as plain text, with the titles of their sections."""

import bz2
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from minqa.corpus.articles import Article
from minqa.corpus.extra import needed
from minqa.files.checkpoint import first_line
from minqa.text import InputError, well_formed

# The names of the namespaces of files and categories that every wiki knows beside its own.
FILE_NAMESPACES = frozenset(["file", "image", "category"])
# Tags whose content is no prose.
DROPPED_TAGS = frozenset(
    "ce chem gallery graph hiero imagemap mapframe maplink math ref references score style table "
    "templatestyles timeline".split()
)
_LANGUAGE = re.compile(r"([a-z]{2,3}(-[a-z]+)*|simple):")
# Quotes for bold and italics, switches, and brackets whose content was dropped.
_LEFTOVERS = re.compile(r"'{2,}|__[A-Z]+__|\(\s*[,;:]*\s*\)|\[\s*\]")


def read_dump(path: Path) -> Iterator[tuple[Article, float]]:
    """Articles of a dump in wikitext, and how much of the file has been read, 0 to 1.

    Redirects and pages of other namespaces are left out; of several revisions of a page, the last counts.
    Memory does not grow with the dump.

    Args:
        path: `.xml`, or `.xml.bz2` of one stream or several.

    Raises:
        InputError: the file cannot be read or is no dump or, once that place is reached, is broken.
    """
    with _opened(path) as (dump, root, file):
        size = path.stat().st_size
        for page in dump:
            if page.namespace == 0 and not page.redirect:
                text = ""
                for revision in page:
                    text = revision.text or ""
                if not text.lstrip()[:9].lower().startswith("#redirect"):
                    article = Article(str(page.id), well_formed(page.title), well_formed(text))
                    yield article, min(file.tell() / size, 1)
            root.clear()  # mwxml empties the elements of past pages, but keeps them


def file_namespaces(path: Path) -> frozenset[str]:
    """A dump's names of the namespaces of files and categories, in lower case. Raises as `read_dump` does."""
    with _opened(path) as (dump, _, _):
        spaces = dump.site_info.namespaces or []
        return FILE_NAMESPACES | {space.name.lower() for space in spaces if space.id in (6, 14)}


def plain(article: Article, files: Collection[str] = FILE_NAMESPACES) -> Article:
    """Wikitext → text without templates, tables, references, files and formulas.

    Args:
        article: as `read_dump` yields it.
        files: the wiki's names of the namespaces of files and categories; links to these are dropped.
    """
    wikitext = needed("mwparserfromhell", "Reading a MediaWiki dump")
    try:
        # Italics and bold are left to a pattern: the parser tries every way to pair them.
        nodes = wikitext.parse(article.text, skip_style_tags=True).nodes
    except wikitext.parser.ParserError:  # text with its mark-up is better than none
        nodes = [wikitext.nodes.Text(article.text)]
    sections, title = [], ""
    pieces: list[str] = []
    for node in nodes:
        if isinstance(node, wikitext.nodes.Heading):
            sections.append((title, _tidy("".join(pieces))))
            title, pieces = _tidy(_text(node.title, files)), []
        else:
            pieces.append(_node_text(node, files))
    sections.append((title, _tidy("".join(pieces))))
    text, starts = "", []
    for title, body in sections:
        if body:
            text += "\n" if text else ""
            starts.append((len(text), title))
            text += body
    return Article(article.id, article.title, text, tuple(starts))


def _text(code: Any, files: Collection[str]) -> str:
    return "".join(_node_text(node, files) for node in code.nodes) if code else ""


def _node_text(node: Any, files: Collection[str]) -> str:
    from mwparserfromhell import nodes

    match node:
        case nodes.Text():
            return node.value
        case nodes.Wikilink():
            title = str(node.title).strip()
            namespace = title.partition(":")[0].strip().lower()
            if namespace in files or (node.text is None and _LANGUAGE.match(title)):
                return ""
            return title.removeprefix(":") if node.text is None else _text(node.text, files)
        case nodes.ExternalLink():
            return _text(node.title, files) if node.brackets else str(node.url)
        case nodes.Tag():
            tag = str(node.tag).strip().lower()
            if tag in DROPPED_TAGS:
                return ""
            return "\n" if tag == "br" else _text(node.contents, files)
        case nodes.Heading():
            return f"\n{_text(node.title, files)}\n"
        case nodes.HTMLEntity():
            return node.normalize()
        case _:  # templates, their arguments, comments
            return ""


def _tidy(text: str) -> str:
    """One line per paragraph, single spaces, no empty line."""
    # An entity may stand for half a character.
    lines = [" ".join(line.split()) for line in _LEFTOVERS.sub("", well_formed(text)).split("\n")]
    return "\n".join(line.replace(" ,", ",").replace(" .", ".") for line in lines if line)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """mwxml's view of a dump, the XML element that collects its pages, and the file, whose place it tells."""
    mwxml = needed("mwxml", "Reading a MediaWiki dump")
    from mwxml.element_iterator import ElementIterator
    from mwxml.errors import MalformedXML

    try:
        with open(path, "rb") as file:
            root = ElementIterator.from_file(bz2.BZ2File(file) if path.suffix == ".bz2" else file)
            if root.tag != "mediawiki":
                raise InputError(
                    f"{path} is no MediaWiki dump: it begins with <{root.tag}> instead of <mediawiki>."
                )
            yield mwxml.Dump.from_element(root), root.element, file
    except InputError:
        raise
    except EOFError:
        raise InputError(f"{path} is cut short: fetch it again; what came before is whole.") from None
    except (ParseError, MalformedXML, ValueError, AttributeError, TypeError) as error:
        reason = first_line(error)[:80]
        raise InputError(f"{path} is no MediaWiki dump, or is broken: {reason}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or 'it is no bzip2 file'}.") from None
