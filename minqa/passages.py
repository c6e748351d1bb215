"""An article → passages: whole sentences up to a number of tokens, and nothing lost between them."""

import re
from collections.abc import Sequence
from itertools import islice, pairwise

import numpy as np
from jaxtyping import Bool, Int

from minqa.corpus import Corpus
from minqa.encoder import Encoder
from minqa.errors import InputError
from minqa.records import Article, Passage
from minqa.text import sentences
from minqa.tokens import Tokens

# With [CLS] and [SEP]: about five sentences.
MAX_TOKENS = 128


def split(
    encoder: Encoder, articles: Sequence[Article], *, max_tokens: int = MAX_TOKENS
) -> list[list[Passage]]:
    """The passages of each article. Joined, their texts are the article's text, to the last space.

    A passage holds as many whole sentences of one section as fit. Only a sentence that is too long is cut,
    between two words where it can be, and a word of too many tokens stands alone. A text of nothing but white
    space has no passage.

    Args:
        encoder: whose tokens are counted.
        articles: texts of any Unicode, as long as they are.
        max_tokens: the most tokens of a passage, special ones and the model's prompt for passages included.

    Raises:
        InputError: that leaves no room for a word, or is more than the model reads at once.
    """
    most = encoder.tokenizer.max_tokens
    [nothing] = encoder.tokenize([""], "passage")
    room = max_tokens - len(nothing)
    if not 0 < room <= most - len(nothing):
        raise InputError(
            f"Passages of at most {max_tokens} tokens are asked for, but {encoder.name} has room for "
            f"{len(nothing) + 1} to {most}."
        )
    texts = [article.text for article in articles]
    return [
        _passages(article, tokens, room)
        for article, tokens in zip(articles, encoder.tokenizer(texts), strict=True)
    ]


def first_passages(encoder: Encoder, corpus: Corpus, number: int = 256) -> list[Passage]:
    """The passages at the beginning of a corpus. Raises InputError as `split` does."""
    most = min(MAX_TOKENS, encoder.tokenizer.max_tokens)
    articles = (corpus.article(record) for record, _ in corpus.read())
    passages = (passage for one in articles for passage in split(encoder, [one], max_tokens=most)[0])
    return list(islice(passages, number))


def _passages(article: Article, tokens: Tokens, room: int) -> list[Passage]:
    text, starts = article.text, tokens.words[:, 0]
    if not text.strip():
        return []
    counted = np.cumsum([0, *np.bincount(tokens.word[tokens.word >= 0], minlength=len(starts))])

    def tokens_before(place):
        return counted[np.searchsorted(starts, place)]

    # Where to cut, the best first: before sentences and lines, behind white space, before words.
    lines, spaces = ([match.end() for match in re.finditer(kind, text)] for kind in (r"\n\s*", r"\s+"))
    cuts = [np.union1d(sentences(text)[:, 0], np.array(lines, int)), np.array(spaces, int), starts]
    cuts = [places[~_inside(places, tokens.words)] for places in cuts]
    ranked = [(places, tokens_before(places)) for places in cuts]

    passages = []
    borders = [(0, ""), *article.sections, (len(text), "")]
    for (start, section), (end, _) in pairwise(borders):
        while start < end:
            stop, before = end, tokens_before(start)
            if tokens_before(end) - before > room:
                # A word that is too long for a passage stands alone.
                stop = min([end, *starts[np.searchsorted(starts, start) + 1 :][:1].tolist()])
                for places, counts in ranked:
                    last = np.searchsorted(counts, before + room, side="right") - 1
                    if last >= 0 and counts[last] > before:
                        stop = int(places[last])
                        break
            passages.append(Passage(article.title, text[start:stop], section, f"{article.id}:{start}", start))
            start = stop
    return passages


def _inside(
    places: Int[np.ndarray, " place"], words: Int[np.ndarray, "word 2"]
) -> Bool[np.ndarray, " place"]:
    """Which places lie within a word: some characters are white space to Python, but not to BERT."""
    word = np.searchsorted(words[:, 0], places) - 1
    return (word >= 0) & (words[word, 1] > places) if len(words) else np.zeros(len(places), bool)
