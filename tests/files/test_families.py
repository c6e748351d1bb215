"""DistilBERT, RoBERTa, XLM-R and other BERTs against transformers' PyTorch, with tokenizers trained here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from conftest import VOCABULARY, compilations, edit_json, sentence_folder, sentence_transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tokens import ANY_TEXT
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

import minqa
from minqa.answers.reader import answer, load_reader, read_pairs
from minqa.app import cli
from minqa.batches import as_batch
from minqa.corpus.passages import split
from minqa.files.tokenizer import SubwordTokenizer, load_tokenizer
from minqa.tokens import comparable

SAMPLE = [
    "The world, in 1915, was at war. Who developed the theory of relativity? A naïve café's war.",
    "世界。中国 你好 世界 首都。你好世界, play played playing players relativity relative",
] * 20
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = [
    "The world, in 1915, was at war.",
    "你好世界。",
    "war",
    "Who developed the theory? " * 30,
    "",
    "naïve café's (relativity)\n\nTHE  end",
    "world war 1915 " * 9,
]


def byte_level(folder: Path) -> None:
    """RoBERTa's tokenizer: byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges).save_pretrained(folder)


def unigram(folder: Path) -> None:
    """XLM-R's tokenizer: a unigram model of text whose spaces are ▁."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL[:4], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    # Rounded, as the library reads numbers of 17 digits from its files inexactly.
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    scores = {piece: round(score, 5) for piece, score in vocabulary}
    scores |= {"▁world,": -1.0, "▁(": -9.0, "世界。": -2.0, "▁café's": -1.0, ",": -9.0, "'": -9.0}
    transformers.XLMRobertaTokenizer(vocab=list(scores.items())).save_pretrained(folder)


def word_piece(folder: Path) -> None:
    """BERT's and DistilBERT's."""
    vocabulary = {piece: number for number, piece in enumerate(VOCABULARY)}
    transformers.DistilBertTokenizer(vocab=vocabulary).save_pretrained(folder)


# Name → tokenizer, transformers' prefix of class names, and settings.
FAMILIES = {
    "roberta": (byte_level, "Roberta", dict(type_vocab_size=1, layer_norm_eps=1e-5)),
    "roberta with padding elsewhere": (byte_level, "Roberta", dict(type_vocab_size=2, pad_token_id=4)),
    "xlm-roberta": (unigram, "XLMRoberta", dict(type_vocab_size=1, layer_norm_eps=1e-5)),
    "distilbert": (word_piece, "DistilBert", {}),
    "distilbert with relu": (word_piece, "DistilBert", dict(activation="relu")),
    "bert with relu": (word_piece, "Bert", dict(hidden_act="relu")),
    "bert with gelu_new": (word_piece, "Bert", dict(hidden_act="gelu_new")),
    "bert with gelu_pytorch_tanh": (word_piece, "Bert", dict(hidden_act="gelu_pytorch_tanh")),
    "bert with XLM-R's tokenizer": (unigram, "Bert", {}),
}
POSITIONS = 40
SIZES = dict(vocab_size=400, max_position_embeddings=POSITIONS, initializer_range=0.3)
BERT_SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
DISTILBERT_SIZES = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48)


def make_folder(folder: Path, name: str, head: str = "Model") -> Path:
    """Save a random model of a family and its tokenizer as transformers does; see `make_bert_folder`."""
    make_tokenizer, prefix, changes = FAMILIES[name]
    sizes = DISTILBERT_SIZES if prefix == "DistilBert" else BERT_SIZES
    config = getattr(transformers, f"{prefix}Config")(**SIZES | sizes | changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}{head}")(config)
    for parameter_name, parameter in model.named_parameters():
        if "bias" in parameter_name or "norm" in parameter_name.lower() or "qa_outputs" in parameter_name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """The folder of a family's model, made once; no test may spoil it."""
    folders = {}

    def folder_of(name, head="Model"):
        if (name, head) not in folders:
            folders[name, head] = make_folder(tmp_path_factory.mktemp("families"), name, head)
        return folders[name, head]

    return folder_of


def oracle(folder, kind=transformers.AutoModel):
    return kind.from_pretrained(folder, attn_implementation="eager").eval()


def run_oracle(model, ids, mask=None, **inputs):
    inputs = {name: torch.tensor(array).long() for name, array in inputs.items()}
    mask = torch.ones(ids.shape) if mask is None else torch.tensor(mask)
    with torch.no_grad():
        return model(torch.tensor(ids).long(), mask.long(), **inputs, output_hidden_states=True)


def draw(config):
    """Ids and mask; each row has another length. Padding has the id that RoBERTa does not number."""
    length = POSITIONS - config.first_position
    mask = np.arange(length)[None] < np.array([[length], [17], [1]])
    ids = np.random.default_rng(0).integers(5, 100, (3, length)).astype(np.int32)
    return np.where(mask, ids, max(config.first_position - 1, 0)).astype(np.int32), mask


@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_states_equal_pytorch(folder_of, name):
    model = minqa.load(folder_of(name)).model
    ids, mask = draw(model.config)
    hidden = np.stack(run_oracle(oracle(folder_of(name)), ids, mask).hidden_states)
    ours = np.asarray(model(ids, mask).hidden)
    np.testing.assert_allclose(ours[:, mask], hidden[:, mask], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("roberta", dict(first_position=1)),
        ("roberta", dict(first_position=0)),
        ("xlm-roberta", dict(first_position=0)),
        ("roberta with padding elsewhere", dict(first_position=2)),
        ("roberta", dict(hidden_act="gelu_new")),
        ("distilbert", dict(hidden_act="gelu_new")),
        ("bert with gelu_new", dict(hidden_act="gelu")),
        ("bert with relu", dict(hidden_act="gelu")),
    ],
    ids=str,
)
def test_the_tolerance_tells_another_offset_or_activation(folder_of, name, change):
    model = minqa.load(folder_of(name)).model
    ids, mask = draw(model.config)
    hidden = np.stack(run_oracle(oracle(folder_of(name)), ids, mask).hidden_states)
    for module in (model.embeddings, *model.layers):
        for setting, value in change.items():
            if hasattr(module, setting):
                setattr(module, setting, value)
    ours = np.asarray(model(ids, mask).hidden)
    assert np.abs(ours - hidden)[:, mask].max() > 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_are_embedded_as_pytorch_does(folder_of, name):
    """Transformers' ids, windows of a long text, short texts that share a row, pooled vectors."""
    encoder = minqa.load(folder_of(name))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of(name))
    model = oracle(folder_of(name))
    vectors = minqa.embed(encoder, TEXTS)
    assert encoder.tokenizer.max_tokens == POSITIONS - encoder.model.config.first_position
    assert max(len(text.tokens.windows) for text in vectors) > 2
    for text, vector in zip(TEXTS, vectors, strict=True):
        windows = tokenizer(
            text, max_length=encoder.tokenizer.max_tokens, truncation=True, return_overflowing_tokens=True
        )["input_ids"]
        windows = [windows] if windows and isinstance(windows[0], int) else windows
        assert vector.tokens.ids.tolist() == [i for window in windows for i in window]
        hidden = [run_oracle(model, np.array([window])).last_hidden_state[0].numpy() for window in windows]
        np.testing.assert_allclose(vector.array, np.concatenate(hidden), atol=2e-5, rtol=0)
        np.testing.assert_allclose(vector.pooled, hidden[0].mean(0), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "distilbert", "bert with XLM-R's tokenizer"])
def test_sentence_transformers_agrees(folder_of, tmp_path, name):
    folder = make_folder(tmp_path / "model", name)
    sentence_folder(
        folder, pooling={"pooling_mode_mean_tokens": True}, prompts={"query": "who: ", "passage": "passage: "}
    )
    edit_json(folder / "sentence_bert_config.json", do_lower_case=False)
    encoder, theirs = minqa.load(folder), sentence_transformer(folder)
    for role in ("query", "passage"):
        ours = minqa.pool(minqa.embed(encoder, TEXTS, role=role))
        np.testing.assert_allclose(ours, theirs.encode(TEXTS, prompt_name=role), atol=1e-5, rtol=0)


def roberta_files(folder):
    """A folder as RoBERTa was released."""
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), "utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), "utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


CHANGES = {
    "as saved": lambda folder: None,
    "any class": lambda folder: edit_json(
        folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"
    ),
    "no class": lambda folder: edit_json(folder / "tokenizer_config.json", tokenizer_class=...),
    "a space first": lambda folder: edit_json(folder / "tokenizer_config.json", add_prefix_space=True),
    "no settings": lambda folder: (folder / "tokenizer_config.json").unlink(),
}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *((name, change) for name in ("roberta", "xlm-roberta", "distilbert") for change in CHANGES.values()),
        ("roberta", roberta_files),
        ("bert with XLM-R's tokenizer", CHANGES["as saved"]),
    ],
    ids=[
        *(f"{name}, {change}" for name in ("roberta", "xlm-roberta", "distilbert") for change in CHANGES),
        "released",
        "E5",
    ],
)
def test_ids_equal_transformers(tmp_path, name, change):
    folder = make_folder(tmp_path / "model", name)
    change(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    texts = [*TEXTS[:3], TEXTS[5], "a <mask> b[MASK]c</s> d", " Hello world ", "a\tb", "x" * 150]
    tokenizer = minqa.load(folder).tokenizer
    for text, tokens in zip(texts, tokenizer(texts), strict=True):
        expected = theirs(text, truncation=True, max_length=tokenizer.max_tokens)["input_ids"]
        assert tokens.ids[: tokens.windows[0]].tolist() == expected, text


def test_a_tokenizer_that_cannot_be_made_is_refused_in_one_sentence(tmp_path):
    folder = make_folder(tmp_path / "model", "roberta")
    roberta_files(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(minqa.InputError, match=r"The tokenizer in .* cannot be read: ") as error:
        minqa.load(folder)
    assert "\n" not in str(error.value)
    (folder / "vocab.json").rename(folder / "sentencepiece.bpe.model")
    with pytest.raises(minqa.InputError, match=r"sentencepiece\.bpe\.model .* needs sentencepiece: install"):
        minqa.load(folder)


# Words.


@pytest.fixture(scope="module", params=["roberta", "xlm-roberta"])
def tokenizer(request, folder_of):
    return load_tokenizer(folder_of(request.param), max_tokens=64, max_positions=64)


def pieces(tokenizer, tokens, number):
    return [tokenizer.backend.id_to_token(i) for i in tokens.ids[tokens.word == number]]


def test_words_are_runs_of_letters_and_single_marks(tokenizer):
    [tokens] = tokenizer(["The world, in 1915, was (naïve)!? 世界"])
    words = tokens.word_texts
    marks = [word for word, is_word in zip(words, tokens.is_word, strict=True) if not is_word]
    assert [word for word in words if word not in marks][:6] == ["The", "world", "in", "1915", "was", "naïve"]
    assert set(marks) <= {",", "(", ")", "!", "?"} and "," in marks, "each by itself"
    assert tokens.word[[0, -1]].tolist() == [-1, -1]


def test_a_token_belongs_to_the_word_of_its_first_letter(folder_of):
    tokenizer = minqa.load(folder_of("xlm-roberta")).tokenizer
    [tokens] = tokenizer(["The world, world ("])
    assert pieces(tokenizer, tokens, 1) == ["▁world,"] and tokens.word_texts[1] == "world"
    assert tokens.keys[1] == tokens.keys[2] == "world", "counted as one word"
    assert pieces(tokenizer, tokens, 3) == ["▁("] and tokens.word_texts[3] == "("
    [tokens] = tokenizer(["café's"])
    assert tokens.word_texts == ["café's"], "s has no token of its own, and stays with that which holds it"
    [tokens] = tokenizer(["世界。世界"])
    assert tokens.word_texts == ["世界", "世界"], "nor has 界, and no letter is lost; the mark is no letter"


def test_a_token_without_characters_swallows_no_words():
    """Of a space before the text, which is a token, no character is left where offsets are trimmed."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=True)
    backend.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(["hi"], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    for text, words in (("hi 你好", ["hi", "你", "好"]), ("x, 你 end", ["x", ",", "你", "end"])):
        assert SubwordTokenizer(backend, 64)([text])[0].word_texts == words


def test_every_word_keeps_all_tokens_that_its_characters_are_split_into(folder_of):
    tokenizer = minqa.load(folder_of("roberta")).tokenizer
    [tokens] = tokenizer(["war แม, 🙂"])
    assert tokens.word_texts == ["war", "แม", ",", "🙂"]
    assert np.bincount(tokens.word[tokens.word >= 0]).tolist()[1:] == [7, 1, 5], (
        "three or four bytes each, and a space"
    )
    assert not tokens.unknown.any(), "bytes are always known"


def test_an_unknown_word_may_match_itself_alone(folder_of):
    encoder = minqa.load(folder_of("xlm-roberta"))
    cat, dog, both = encoder.tokenize(["แมว", "หมา", "แมว world หมา, แมว"])
    assert cat.ids.tolist() == dog.ids.tolist(), "the model sees <unk> of both"
    assert both.unknown.tolist() == [True, False, True, False, True]
    assert comparable(cat, dog).tolist() == [[False]]
    assert comparable(cat, both).tolist() == [[True, False, False, False, True]]


def test_a_list_holds_the_words_whatever_the_tokenizer_thinks(tokenizer):
    given = ["Barack", "Obama", "'s", "New York", "", "!?", "\n", "the\nend", "世界"]
    [tokens] = tokenizer([given], "who: ")
    assert tokens.word_texts == given and tokens.text == " ".join(given)
    assert len(tokens.keys) == len(tokens.unknown) == len(given) and tokens.prompt_tokens > 1
    assert tokens.is_word.tolist() == [True, True, True, True, False, False, False, True, True]
    [joined] = tokenizer([" ".join(given)], "who: ")
    np.testing.assert_array_equal(tokens.ids, joined.ids)


@given(ANY_TEXT | st.text(st.sampled_from("world, 1915世界。'éx(\n▁Ġ")))
@settings(max_examples=300)
def test_offsets_and_tokens_of_any_text(tokenizer, text):
    [tokens] = tokenizer([text])
    ends = 0
    for number, (start, end) in enumerate(tokens.words.tolist()):
        assert ends <= start < end <= len(text) and number in tokens.word
        assert not any(map(str.isalnum, tokens.text[ends:start])), "no letter is outside of the words"
        ends = end
    assert not any(map(str.isalnum, tokens.text[ends:]))
    assert "\n" not in "".join(tokens.keys), "which would shift the counts of statistics"
    real = tokens.word[tokens.word >= 0]
    assert (np.diff(real) >= 0).all() and set(real) == set(range(len(tokens.words)))
    assert sum(tokens.windows) == len(tokens) == len(tokens.word)


@given(st.lists(ANY_TEXT, max_size=12), st.sampled_from(["", "who played: "]))
def test_any_list_keeps_its_words(tokenizer, words, prompt):
    [tokens] = tokenizer([words], prompt)
    assert tokens.word_texts == [
        word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in words
    ]
    assert (np.diff(tokens.word[tokens.word >= 0]) >= 0).all()
    assert "\n" not in "".join(tokens.keys)
    assert (tokens.prompt_tokens > 0) == (prompt != "")


def test_a_prompt_is_read_but_is_no_word(tokenizer):
    [plain, prompted] = [tokenizer(["the theory, world"], prompt)[0] for prompt in ("", "who played: ")]
    assert prompted.word_texts == plain.word_texts == ["the", "theory", ",", "world"]
    assert prompted.prompt_tokens > 3 and (prompted.word[: prompted.prompt_tokens] == -1).all()


def test_articles_are_split_where_their_words_begin(folder_of):
    from conftest import Article

    for name in ("roberta", "xlm-roberta"):
        encoder = minqa.load(folder_of(name))
        text = "你好世界。" * 30 + "The world, in 1915, was at war. " * 9 + "▁ " * 90
        [passages] = split(encoder, [Article("0", "t", text)], max_tokens=24)
        assert "".join(passage.text for passage in passages).split() == text.split()


# Readers.

QUESTION = "Who developed the theory?"
PASSAGE = "The naïve theory of relativity, a café's war; 1915 played (世界。) world, war. "
READERS = ["roberta", "xlm-roberta", "distilbert", "bert with XLM-R's tokenizer"]


@pytest.mark.parametrize("name", READERS)
def test_logits_of_readers_equal_pytorch(folder_of, name):
    """Question and passage are framed as transformers frames them, in windows that overlap."""
    folder = folder_of(name, "ForQuestionAnswering")
    reader = load_reader(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(
        QUESTION, PASSAGE * 3, max_length=reader.tokenizer.max_tokens, stride=5, truncation="only_second",
        return_overflowing_tokens=True,
    )  # fmt: skip
    [tokens] = read_pairs(reader.tokenizer, QUESTION, [PASSAGE * 3], overlap=5)
    assert tokens.ids.tolist() == [i for window in encoded["input_ids"] for i in window]
    assert len(tokens.windows) > 2
    model = oracle(folder, transformers.AutoModelForQuestionAnswering)
    assert reader.tokenizer.max_tokens == POSITIONS - reader.model.encoder.config.first_position
    for number, window in enumerate(encoded["input_ids"]):
        types = {"token_type_ids": [encoded["token_type_ids"][number]]} if "token_type_ids" in encoded else {}
        expected = run_oracle(model, np.array([window]), **types)
        given = tokens.types[sum(tokens.windows[:number]) :][: len(window)][None]
        ours = reader.model(np.array([window], np.int32), np.ones((1, len(window)), bool), given)
        for scores, theirs in zip(ours, (expected.start_logits, expected.end_logits), strict=True):
            np.testing.assert_allclose(scores, theirs.numpy(), atol=1e-4, rtol=0)
            assert np.ptp(theirs.numpy()) > 0.1, "a thousand times what is tolerated"


@pytest.mark.parametrize("name", READERS)
def test_answers_are_whole_words_without_the_mark_beside_them(folder_of, name):
    reader = load_reader(folder_of(name, "ForQuestionAnswering"))
    [spans] = answer(reader, QUESTION, [PASSAGE], k=400, max_length=1, no_answer=False)
    texts = {span.text for span in spans}
    assert all(span.text == PASSAGE[span.start : span.end] for span in spans)
    assert {"naïve", "relativity", "world", "1915"} <= texts
    assert not any(text[-1] in ",.;" for text in texts if len(text) > 1)
    spaced = "theory  of\n\nrelativity"
    [spans] = answer(reader, QUESTION, [spaced], k=400, max_length=30, no_answer=False)
    assert spaced in {span.text for span in spans}, "spaces part no answer"


def test_a_reader_that_cannot_tell_question_from_passage_is_refused(folder_of, tmp_path):
    load_reader(folder_of("roberta", "ForQuestionAnswering"))
    folder = make_folder(tmp_path / "single", "roberta", "ForQuestionAnswering")
    for path in folder.glob("*token*"):
        path.unlink()
    word_piece(folder)  # whose second text has a type that the model lacks
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    with pytest.raises(minqa.InputError, match="its type_vocab_size is 1"):
        load_reader(folder)


# The command line.


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "distilbert"])
def test_questions_and_heat_maps_on_the_command_line(folder_of, tmp_path, capsys, name):
    corpus = tmp_path / "corpus.jsonl"
    texts = ["The theory of relativity, developed in 1915.", "World war. " * 40, "你好世界。"]
    corpus.write_text("\n".join(json.dumps({"title": str(i), "text": text}) for i, text in enumerate(texts)))

    def run(*words):
        models = ("--model", folder_of(name), "--cache", tmp_path / "cache", "--json")
        assert cli.main([*map(str, (*words, *models))]) == 0
        return json.loads(capsys.readouterr().out)["results"]

    reader = ("--reader", folder_of(name, "ForQuestionAnswering"))
    for found in (
        run("ask", "theory, 1915?", "--corpus", corpus, *reader),
        run("heat", "the theory, 1915", texts[0]),
    ):
        for result in found:
            words = {word["text"]: word["heat"][0] for word in result["words"]}
            assert all(
                result["text"][word["start"] : word["end"]] == word["text"] for word in result["words"]
            )
            assert all(heat is not None for word, heat in words.items() if word.isalnum())
            assert not any(len(word) > 1 and not (word[0] + word[-1]).isalnum() for word in words)
    assert words["theory"] is not None and {"relativity", "1915"} <= {*words}


# Files.


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForSequenceClassification", "ForQuestionAnswering"])
@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "distilbert"])
def test_models_with_a_head_load(folder_of, name, head):
    ids = np.arange(5, 13, dtype=np.int32)[None]
    model = oracle(folder_of(name, head))
    ours = minqa.load(folder_of(name, head)).model(ids, ids > 0).hidden[-1]
    np.testing.assert_allclose(ours, run_oracle(model, ids).last_hidden_state, atol=2e-5, rtol=0)


@pytest.mark.parametrize("prefix", ["Roberta", "DistilBert"])
def test_a_cross_encoder_is_refused(tmp_path, prefix):
    name = prefix.lower()
    folder = make_folder(tmp_path / "model", name, "ForSequenceClassification")
    edit_json(folder / "config.json", id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    with pytest.raises(minqa.InputError, match="cross-encoder"):
        minqa.load(folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_the_same_here_and_in_sentence_transformers(folder_of, tmp_path, name):
    encoder = minqa.load(folder_of(name))
    minqa.save(encoder, tmp_path / "saved")
    again = minqa.load(tmp_path / "saved")
    assert again.fingerprint == encoder.fingerprint and again.model.config == encoder.model.config
    theirs = sentence_transformer(tmp_path / "saved").encode(TEXTS)
    np.testing.assert_allclose(minqa.pool(minqa.embed(again, TEXTS)), theirs, atol=1e-5, rtol=0)


def test_fingerprints_tell_families_apart_and_those_of_berts_are_kept(folder_of):
    config = minqa.load(folder_of("bert with XLM-R's tokenizer")).model.config
    assert "hidden_act" not in repr(config) and "first_position" not in repr(config)
    others = [replace(config, hidden_act="relu"), replace(config, first_position=2)]
    assert len({repr(config), *map(repr, others)}) == 3
    assert repr(others[0]).endswith("hidden_act='relu')")


def test_layers_of_one_family_share_a_compiled_program(folder_of):
    model = minqa.load(folder_of("distilbert with relu")).model
    ids = np.ones((2, 37), np.int32)  # of which no other test has a program
    assert 0 < compilations(lambda: model(ids, ids > 0)) < 12
    assert compilations(lambda: model(ids + 1, ids > 0)) == 0


def test_batches_of_short_texts_share_rows(folder_of):
    encoder = minqa.load(folder_of("roberta"))
    tokens = encoder.tokenize(["war", "the world"])
    batch = as_batch(tokens)
    assert batch.positions[:, 0].tolist() == [0, 0], "the model adds what its table begins with"
    assert isinstance(encoder.tokenizer, SubwordTokenizer)
