"""A MediaWiki dump → its articles in wikitext."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from minqa.corpus.articles import Row, opened
from minqa.corpus.wikitext import FILE_NAMESPACES, is_tangled
from minqa.files.checkpoint import first_line
from minqa.files.extras import needed
from minqa.text import InputError


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
