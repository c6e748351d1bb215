"""An article → passages: whole sentences up to a number of tokens, and nothing lost between them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice, pairwise

import numpy as np

from minqa.corpus.articles import Article, Corpus
from minqa.encoder import Encoder
from minqa.text import InputError, Passage, sentences
from minqa.tokens import Tokens

# Special tokens included: about five sentences.
MAX_TOKENS = 128
# Which bounds the tokens in memory; a longer article is split with few others.
CHARACTERS_SPLIT_AT_ONCE = 2**18


def split(
    encoder: Encoder, articles: Sequence[Article], *, max_tokens: int = MAX_TOKENS
) -> list[list[Passage]]:
    """The passages of each article. Joined, their texts are the article's text, to the last space.

    A passage holds as many whole sentences of one section as fit. Only a sentence that is too long is cut,
    between two words if possible, and a word of too many tokens is a passage by itself. Words are those of
    the tokenizer: a character that it drops, such as BERT's a private-use one, does not part two words. A
    text of nothing but white space has no passage.

    What counts are the tokens of a passage read by itself, as the model will read it. As a piece of a longer
    text it may have fewer: a tokenizer that reorders combining marks can give their tokens to another word.
    So a passage that is too long by itself is split again, as a text of its own, and whatever the Unicode,
    none of more than one word is longer than `max_tokens`.

    Args:
        encoder: its tokens are counted.
        articles: texts of any Unicode and length.
        max_tokens: the most tokens of a passage, special ones and the model's prompt for passages included.

    Raises:
        InputError: that leaves no room for a word, or is more than the model reads at once.
    """
    most = encoder.tokenizer.max_tokens
    [empty] = encoder.tokenize([""], "passage")
    room = max_tokens - len(empty)
    if not 0 < room <= most - len(empty):
        raise InputError(
            f"Passages of at most {max_tokens} tokens are asked for, but {encoder.name} has room for "
            f"{len(empty) + 1} to {most}."
        )
    split_articles: list[list[Passage]] = [[] for _ in articles]
    parts = [(number, *part) for number, article in enumerate(articles) for part in _sections(article)]
    while parts:
        read = encoder.tokenize([text for *_, text in parts], "passage")
        long, parts = parts, []
        for (number, section, start, text), tokens in zip(long, read, strict=True):
            if len(tokens) > max_tokens and len(tokens.words) > 1:
                for piece in _cut(text, tokens, room):
                    parts.append((number, section, start, piece))
                    start += len(piece)
            else:
                article = articles[number]
                place = f"{article.id}:{start}", start
                split_articles[number].append(Passage(article.title, text, section, *place, article.extra))
    return [sorted(passages, key=lambda passage: passage.start) for passages in split_articles]


def passages_of(encoder: Encoder, articles: Iterable[Article], max_tokens: int) -> Iterator[Passage]:
    """The passages of articles, one after the other, of which few are in memory; see `split`."""
    characters = 0

    def bunch(article: Article) -> int:
        nonlocal characters
        characters += len(article.text)
        return characters // CHARACTERS_SPLIT_AT_ONCE

    for _, together in groupby(articles, bunch):
        yield from chain.from_iterable(split(encoder, [*together], max_tokens=max_tokens))


def first_passages(encoder: Encoder, corpus: Corpus, number: int) -> list[Passage]:
    """The passages at the beginning of a corpus. Raises InputError as `split` does."""
    most = min(MAX_TOKENS, encoder.tokenizer.max_tokens)
    return list(islice(passages_of(encoder, corpus.articles(), most), number))


def _sections(article: Article) -> list[tuple[str, int, str]]:
    """Title, start and text of each section, whose texts joined are the article's; none if that is blank."""
    if not article.text.strip():
        return []
    borders = [(0, ""), *article.sections, (len(article.text), "")]
    return [
        (name, here, article.text[here:end]) for (here, name), (end, _) in pairwise(borders) if here < end
    ]


def _cut(text: str, tokens: Tokens, room: int) -> list[str]:
    """Cut a text of several words before as many of them as leave each piece `room` tokens or one word."""
    starts = np.maximum.accumulate(tokens.words[:, 0])
    counted = np.cumsum([0, *np.bincount(tokens.word[tokens.word >= 0], minlength=len(starts))])
    room = min(room, counted[-1] - 1)

    def tokens_before(place):
        return counted[np.searchsorted(starts, place)]

    def outside_words(places):  # some characters are white space to Python, but not to BERT
        word = np.searchsorted(starts, places) - 1
        return places[(word < 0) | (tokens.words[word, 1] <= places)]

    # Where to cut, the best first: before sentences and lines, after white space, before words.
    lines, spaces = ([match.end() for match in re.finditer(kind, text)] for kind in (r"\n\s*", r"\s+"))
    cuts = [np.union1d(sentences(text)[:, 0], np.array(lines, int)), np.array(spaces, int), starts]
    ranked = [(places, tokens_before(places)) for places in map(outside_words, cuts)]

    pieces, start = [], 0
    while start < len(text):
        stop, before = len(text), tokens_before(start)
        if counted[-1] - before > room:
            # A word that is too long for a passage stands alone.
            following = starts[starts > starts[np.searchsorted(starts, start)]]
            stop = int(following[0]) if len(following) else len(text)
            for places, counts in ranked:
                last = np.searchsorted(counts, before + room, side="right") - 1
                if last >= 0 and counts[last] > before:
                    stop = int(places[last])
                    break
        pieces.append(text[start:stop])
        start = stop
    return pieces
