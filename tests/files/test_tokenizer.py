"""The tokenizer of a folder gives the ids that transformers' AutoTokenizer gives."""

import json
import sys

import pytest
import transformers
from conftest import VOCABULARY, edit_json
from tokenizers import Tokenizer

import minqa
from minqa.files.tokenizer import load_tokenizer

TEXTS = [
    "Who developed the theory?",
    "CAFÉ  naïve",
    "e\u0301e\u0301 x",
    "",
    "  ",
    "ab‐cd\tef\ngh",
    "日本 [SEP] x",
]


@pytest.fixture(params=["tokenizer.json", "vocab.txt", "cased"])
def folder(request, bert_folder):
    """Folders in which the tokenizer is written down differently."""
    if request.param == "vocab.txt":
        (bert_folder / "tokenizer.json").unlink()
    else:
        (bert_folder / "vocab.txt").unlink()
    if request.param == "cased":
        tokenizer = transformers.BertTokenizerFast(
            {piece: i for i, piece in enumerate(VOCABULARY)}, do_lower_case=False
        )
        tokenizer.save_pretrained(bert_folder)
    return bert_folder


def test_ids_equal_transformers(folder):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(folder, max_tokens=64, max_positions=64)(TEXTS)
    for text, tokens in zip(TEXTS, ours, strict=True):
        assert tokens.ids.tolist() == theirs(text)["input_ids"]


def edit_normalizer(folder, **changes):
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    edit_json(folder / "tokenizer.json", normalizer=content["normalizer"] | changes)


NEW = len(VOCABULARY)


def added(content, number=NEW, **flags):
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content, **dict.fromkeys(names, False), **flags}


def add_token(folder, token):
    """Add a token in tokenizer.json alone."""
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    edit_json(folder / "tokenizer.json", added_tokens=[*content["added_tokens"], token])


def list_tokens(folder, *more):
    """List in tokenizer_config.json the added tokens of tokenizer.json, and more."""
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    listed = {str(token["id"]): dict(token) for token in [*content["added_tokens"], *more]}
    for token in listed.values():
        del token["id"]
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder=listed)


def flagged(content, **flags):
    token = {key: value for key, value in added(content, **flags).items() if key != "id"}
    return {"__type": "AddedToken", **token}


def older(folder, kind, name, content):
    """A folder as transformers 4.33 wrote it: added and special tokens have files of their own."""
    edit_json(
        folder / "tokenizer_config.json",
        tokenizer_class=kind or ...,
        added_tokens_decoder=...,
        mask_token=...,
    )
    (folder / name).write_text(json.dumps(content), "utf-8")


SPLIT_TEXTS = [
    "Who developed the THEORY, café cafe\u0301 NAÏVE? relativity x",
    "日本語 theory日本war",
    "the world [X]war  [x]war a[X]b [X] who [X] [MASK] a[MASK]b",
    "a\x00b war\u200bwar",
    "",
    "theory of war " * 12,
]
# Names in tokenizer_config.json → names in tokenizer.json.
SETTINGS = {"do_lower_case": "lowercase", "strip_accents": "strip_accents"}
SETTINGS |= {"tokenize_chinese_chars": "handle_chinese_chars"}
DISAGREEMENTS = {
    f"{name} is {config}, and was {backend}": (
        lambda folder, name=name, config=config, backend=backend: (
            edit_json(folder / "tokenizer_config.json", **{name: config}),
            edit_normalizer(folder, **{SETTINGS[name]: backend}),
        )
    )
    for name in SETTINGS
    for config in (True, False, None, ...)
    for backend in ((True, False, None) if name == "strip_accents" else (True, False))
    if config != backend and not (config is None and name != "strip_accents")
} | {
    "accents are kept and capitals not": lambda folder: edit_json(
        folder / "tokenizer_config.json", strip_accents=True, do_lower_case=False
    ),
    "nothing frames a text in tokenizer.json": lambda folder: edit_json(
        folder / "tokenizer.json", post_processor=None
    ),
    "clean_text was false": lambda folder: edit_normalizer(folder, clean_text=False),
    "there is no tokenizer_config.json": lambda folder: (
        (folder / "tokenizer_config.json").unlink(),
        edit_normalizer(folder, lowercase=False),
    ),
    "a token is added in tokenizer_config.json": lambda folder: list_tokens(folder, added("[X]")),
    "a token is added in tokenizer.json": lambda folder: (
        list_tokens(folder),
        add_token(folder, added("[X]")),
    ),
    "a token is added in both": lambda folder: (add_token(folder, added("[X]")), list_tokens(folder)),
    "a piece is an added token": lambda folder: list_tokens(folder, added("the", VOCABULARY.index("the"))),
    "a word is an added token": lambda folder: list_tokens(folder, added("relativity")),
    "a token is special": lambda folder: edit_json(
        folder / "tokenizer_config.json", extra_special_tokens=["[X]"]
    ),
    "a token is special as transformers 4 wrote it": lambda folder: edit_json(
        folder / "tokenizer_config.json", additional_special_tokens=["[X]"]
    ),
    **{
        f"{flag} is {config}, and was {not config}": (
            lambda folder, flag=flag, config=config: (
                add_token(folder, added("[X]", **{flag: not config})),
                list_tokens(folder, added("[X]", **{flag: config})),
            )
        )
        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
        for config in (True, False)
    },
    **{
        f"{role} is {token}": lambda folder, role=role, token=token: edit_json(
            folder / "tokenizer_config.json", **{role: token}
        )
        for role in ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token", "bos_token")
        for token in ("a", "[X]", "[SEP]", "[MASK]", None)
        if (role, token) not in [("unk_token", "[X]"), ("unk_token", None)]  # with which theirs fails
    },
    **{
        f"{name} in {kind}'s special_tokens_map.json": lambda folder, tokens=tokens, kind=kind: older(
            folder, kind, "special_tokens_map.json", tokens
        )
        for name, tokens in {
            "a role": {"mask_token": "[X]"},
            "a role with flags": {"mask_token": flagged("[X]", lstrip=True)},
            "a known token with flags": {"mask_token": flagged("[MASK]", lstrip=True)},
            "another [UNK]": {"unk_token": "the"},
            "a list": {"additional_special_tokens": ["[X]"]},
            "a list with flags": {"additional_special_tokens": [flagged("[X]", rstrip=True)]},
            "extra tokens": {"extra_special_tokens": ["[X]"]},
        }.items()
        for kind in ("BertTokenizer", "PreTrainedTokenizerFast", None)
    },
    **{
        f"{name} in {kind}'s added_tokens.json": lambda folder, tokens=tokens, kind=kind: older(
            folder, kind, "added_tokens.json", tokens
        )
        for name, tokens in {
            "a new token": {"[X]": NEW},
            "a piece": {"relativ": VOCABULARY.index("relativ")},
            "what is known": {"[SEP]": VOCABULARY.index("[SEP]")},
        }.items()
        for kind in ("BertTokenizer", "PreTrainedTokenizerFast", None)
    },
    "files of before beside a list of added tokens": lambda folder: (
        list_tokens(folder),
        (folder / "added_tokens.json").write_text(json.dumps({"[X]": NEW})),
        (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": "[X]"})),
    ),
}


@pytest.mark.parametrize("spoil", DISAGREEMENTS.values(), ids=DISAGREEMENTS.keys())
def test_ids_equal_transformers_where_the_folder_disagrees_with_itself(bert_folder, spoil):
    spoil(bert_folder)
    theirs = transformers.AutoTokenizer.from_pretrained(bert_folder)
    ours = load_tokenizer(bert_folder, max_tokens=64, max_positions=64)(SPLIT_TEXTS)
    for text, tokens in zip(SPLIT_TEXTS, ours, strict=True):
        assert pooled_ids(tokens) == theirs(text, truncation=True, max_length=64)["input_ids"], text


def pooled_ids(tokens):
    """The ids in the window that truncation would keep."""
    start = sum(tokens.windows[: tokens.pooled_window])
    return tokens.ids[start : start + tokens.windows[tokens.pooled_window]].tolist()


@pytest.mark.parametrize("config", [..., "left", "right"])
@pytest.mark.parametrize("backend", [None, "Left", "Right"])
def test_the_pooled_window_is_what_transformers_truncates_to(bert_folder, config, backend):
    truncation = {"direction": backend, "max_length": 10, "strategy": "LongestFirst", "stride": 0}
    edit_json(bert_folder / "tokenizer.json", truncation=truncation if backend else None)
    edit_json(bert_folder / "tokenizer_config.json", truncation_side=config)
    theirs = transformers.AutoTokenizer.from_pretrained(bert_folder)
    ours = load_tokenizer(bert_folder, max_tokens=12, max_positions=64)(SPLIT_TEXTS)
    for text, tokens in zip(SPLIT_TEXTS, ours, strict=True):
        assert pooled_ids(tokens) == theirs(text, truncation=True, max_length=12)["input_ids"], text
        assert "".join(tokens.word_texts) == "".join(
            load_tokenizer(bert_folder, max_tokens=64, max_positions=64)([text])[0].word_texts
        ), "all windows are read, in order"


def test_transformers_is_imported_only_where_the_folder_disagrees_with_itself(bert_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    load_tokenizer(bert_folder, max_tokens=64, max_positions=64)
    list_tokens(bert_folder)
    edit_json(bert_folder / "tokenizer_config.json", truncation_side="left", do_lower_case=...)
    load_tokenizer(bert_folder, max_tokens=64, max_positions=64)
    older(
        bert_folder,
        "BertTokenizer",
        "special_tokens_map.json",
        {"mask_token": flagged("[MASK]"), "cls_token": "[CLS]"},
    )
    (bert_folder / "added_tokens.json").write_text(json.dumps({"[SEP]": VOCABULARY.index("[SEP]")}))
    load_tokenizer(bert_folder, max_tokens=64, max_positions=64)
    edit_json(bert_folder / "tokenizer_config.json", do_lower_case=False)
    with pytest.raises(minqa.InputError, match="transformers"):
        load_tokenizer(bert_folder, max_tokens=64, max_positions=64)


def test_an_unknown_side_is_refused(bert_folder):
    edit_json(bert_folder / "tokenizer_config.json", truncation_side="up")
    with pytest.raises(minqa.InputError, match="truncation_side is 'up'"):
        load_tokenizer(bert_folder, max_tokens=64, max_positions=64)


def test_max_tokens_is_the_smallest_of_all_limits(bert_folder):
    edit_json(bert_folder / "tokenizer_config.json", model_max_length=50)
    assert load_tokenizer(bert_folder, max_tokens=None, max_positions=64).max_tokens == 50
    assert load_tokenizer(bert_folder, max_tokens=20, max_positions=64).max_tokens == 20
    assert load_tokenizer(bert_folder, max_tokens=99, max_positions=64).max_tokens == 64


def test_padding_and_truncation_written_into_the_tokenizer_do_not_count(bert_folder):
    tokenizer = Tokenizer.from_file(str(bert_folder / "tokenizer.json"))
    tokenizer.enable_padding(length=40)
    tokenizer.enable_truncation(10)
    tokenizer.save(str(bert_folder / "tokenizer.json"))
    [tokens] = load_tokenizer(bert_folder, max_tokens=20, max_positions=64)(["war " * 12])
    assert tokens.windows == (14,)


def vocabulary_of(folder, *pieces):
    """Give the tokenizer, in both of its files, another vocabulary."""
    (folder / "vocab.txt").write_text("\n".join(pieces), "utf-8")
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["model"]["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in pieces]
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize("kept", ["tokenizer.json", "vocab.txt"])
@pytest.mark.parametrize(
    "pieces", [(), ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "war")], ids=["empty", "no unk"]
)
def test_a_tokenizer_without_unknown_words_is_refused(bert_folder, kept, pieces):
    vocabulary_of(bert_folder, *pieces)
    (bert_folder / {"tokenizer.json": "vocab.txt", "vocab.txt": "tokenizer.json"}[kept]).unlink()
    with pytest.raises(minqa.InputError, match="tokenizer") as error:
        minqa.load(bert_folder)
    assert "\n" not in str(error.value)


def test_an_unknown_token_that_is_none_is_refused(bert_folder):
    edit_json(bert_folder / "tokenizer_config.json", unk_token="[X]")
    with pytest.raises(minqa.InputError, match=r"lacks \[X\]"):
        minqa.load(bert_folder)


def test_broken_tokenizers_are_refused(bert_folder):
    (bert_folder / "tokenizer.json").write_text("{")
    with pytest.raises(minqa.InputError, match=r"tokenizer in .* cannot be read"):
        minqa.load(bert_folder)
    (bert_folder / "tokenizer.json").unlink()
    (bert_folder / "vocab.txt").unlink()
    with pytest.raises(minqa.InputError, match="holds no tokenizer"):
        minqa.load(bert_folder)
