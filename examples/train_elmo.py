"""Train a small ELMo on the Wikipedia leads and write it as the released ones are written.

    uv run python examples/train_elmo.py small-elmo --minutes 15

The two language models learn to name each next word: the forward one from the words before it, the backward
one from the words behind it (Peters et al. 2018, section 3.1). Then `--model small-elmo` is an ELMo, though
a small one that has read a thousandth of what the original has.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import minqa
from minqa.elmo import Elmo, ElmoConfig
from minqa.files.elmo import spell
from minqa.tokens import make_speller

OPTIONS = {
    "lstm": {
        "use_skip_connections": True, "projection_dim": 128, "cell_clip": 3, "proj_clip": 3, "dim": 512,
        "n_layers": 2,
    },
    "char_cnn": {
        "activation": "relu", "filters": [[1, 16], [2, 32], [3, 64], [4, 96]], "n_highway": 1,
        "embedding": {"dim": 16}, "n_characters": 262, "max_characters_per_token": 50,
    },
}  # fmt: skip
BATCH, WORDS, VOCABULARY = 32, 48, 8000


class LanguageModels(nnx.Module):
    """An ELMo and what makes words of its top layer."""

    def __init__(self, config, *, rngs):
        self.elmo = Elmo(config, rngs=rngs)
        self.output = nnx.Linear(config.projection_dim, VOCABULARY, rngs=rngs)

    def loss(self, ids, numbers):
        """Cross-entropy of the next word, in both directions; 0 is a word that is not in the vocabulary."""
        forward, backward = jnp.split(self.elmo(ids, numbers >= 0).hidden[-1], 2, -1)
        losses = []
        for vectors, wanted in [(forward[:, :-1], numbers[:, 1:]), (backward[:, 1:], numbers[:, :-1])]:
            known = wanted > 0
            loss = optax.softmax_cross_entropy_with_integer_labels(self.output(vectors), wanted.clip(0))
            losses.append((loss * known).sum() / known.sum())
        return (losses[0] + losses[1]) / 2


def batches(texts, seed):
    """Spelled words and their numbers, WORDS at a time, without end; -1 stands where a passage has ended."""
    counts = Counter(word for words in texts for word in words)
    number = {word: i for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 1), 1)}
    pieces = [words[i : i + WORDS] for words in texts for i in range(0, len(words), WORDS)]
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(pieces))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            ids = np.zeros((BATCH, WORDS, 50), np.int32)
            numbers = np.full((BATCH, WORDS), -1, np.int32)
            for row, piece in enumerate(pieces[i] for i in order[start : start + BATCH]):
                ids[row, : len(piece)] = spell(piece)
                numbers[row, : len(piece)] = [number.get(word, 0) for word in piece]
            yield ids, numbers


def save(elmo, folder):
    """Write an ELMo's two files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(OPTIONS, indent=2))
    with h5py.File(folder / "weights.hdf5", "w") as file:
        words = elmo.words
        file["char_embed"] = words.characters.embedding
        file["CNN_proj/W_proj"], file["CNN_proj/b_proj"] = words.projection.kernel, words.projection.bias
        for i, bank in enumerate(words.convolutions):
            file[f"CNN/W_cnn_{i}"], file[f"CNN/b_cnn_{i}"] = bank.kernel[None], bank.bias[...]
        for i, highway in enumerate(words.highways):
            for name, part in (("carry", highway.gate), ("transform", highway.transform)):
                file[f"CNN_high_{i}/W_{name}"], file[f"CNN_high_{i}/b_{name}"] = part.kernel, part.bias
        for direction in range(2):
            for i, layer in enumerate(elmo.layers):
                cell = file.create_group(f"RNN_{direction}/RNN/MultiRNNCell/Cell{i}/LSTMCell")
                read, recurrent = layer.input[direction], layer.recurrent[direction]
                cell["W_0"] = np.concatenate([read.T, recurrent.T])
                cell["B"], cell["W_P_0"] = layer.bias[direction], layer.projection[direction].T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write options.json and weights.hdf5")
    parser.add_argument("--minutes", type=float, default=15, help="when to stop (default: 15)")
    arguments = parser.parse_args()
    speller = make_speller(50)
    texts = [tokens.word_texts for tokens in speller([one.text for one in minqa.demo_passages()])]
    model = LanguageModels(ElmoConfig.from_dict(OPTIONS), rngs=nnx.Rngs(0))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))
    state = optimizer.init(model)

    @jax.jit
    def step(model, state, ids, numbers):
        loss, gradients = jax.value_and_grad(LanguageModels.loss)(model, ids, numbers)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(model, updates), state, loss

    start, losses = time.monotonic(), []
    for ids, numbers in batches(texts, seed=0):
        model, state, loss = step(model, state, ids, numbers)
        losses.append(loss)
        if len(losses) % 50 == 0:
            spent = time.monotonic() - start
            print(
                f"{spent / 60:5.1f} min, {len(losses)} batches: loss {np.mean(losses[-50:]):.2f}", flush=True
            )
            if spent > 60 * arguments.minutes:
                break
    save(model.elmo, arguments.folder)
    minqa.load(arguments.folder)
    print(f"Written to {arguments.folder}.")


if __name__ == "__main__":
    main()
