"""ELMo at the released size beside the same arithmetic in PyTorch, with random weights."""

from functools import lru_cache

import jax
import numpy as np
from flax import nnx

from benchmarks.harness import agree_to, sweep, torch_device
from minqa.batches import Batch, run_model
from minqa.elmo import Elmo, ElmoConfig, boundaries
from minqa.files.elmo import spell

FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
# Characters per word and their dimension; highway layers, projection and cells; LSTM layers and both clips.
RELEASED = ElmoConfig(50, 16, FILTERS, "relu", 2, 512, 4096, 2, 3.0, 3.0, skip_connections=True)
LSTM_SHAPES = (4 * RELEASED.lstm_dim, RELEASED.projection_dim), (RELEASED.projection_dim, RELEASED.lstm_dim)


@lru_cache(maxsize=1)
def model_of(dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), Elmo(RELEASED, rngs=nnx.Rngs(0)))


class TorchElmo:
    """The model above, written plainly with PyTorch's own functions, for texts of equal length."""

    def __init__(self, model):
        import torch

        self.torch, self.device = torch, torch_device()
        dtype = getattr(torch, str(model.words.characters.embedding.dtype))

        def tensor(leaf):
            # The LSTMs' matrices the other way round, [input, output], as products want them here.
            array = np.transpose(leaf) if leaf.shape in LSTM_SHAPES else leaf
            return torch.tensor(np.ascontiguousarray(array, np.float32)).to(self.device, dtype)

        self.model = jax.tree.map(tensor, model)  # the same modules, with tensors in place of arrays

    def __call__(self, ids):
        torch = self.torch
        with torch.inference_mode():
            start, end = torch.tensor(boundaries(), device=self.device)
            row = ids.shape[0], 1, -1
            top = self.read(torch.cat([start.expand(*row), ids, end.expand(*row)], 1))[:, 1:-1]
            return top.float().cpu().numpy()

    def read(self, ids):
        torch, words = self.torch, self.model.words
        table = torch.nn.functional.pad(words.characters.embedding[...], (0, 0, 1, 0))
        characters = table[ids.flatten(0, 1)].transpose(1, 2)
        banks = [(bank.kernel[...].permute(2, 1, 0), bank.bias[...]) for bank in words.convolutions]
        x = torch.relu(torch.cat([torch.conv1d(characters, *bank).amax(-1) for bank in banks], -1))
        for highway in words.highways:
            gate = torch.sigmoid(linear(highway.gate, x))
            x = gate * torch.relu(linear(highway.transform, x)) + (1 - gate) * x
        x = linear(words.projection, x).unflatten(0, ids.shape[:2])
        outputs = [x, x.flip(1)]
        for number, layer in enumerate(self.model.layers):
            read = [
                self.lstm(lstm, x) for lstm, x in zip((layer.forward, layer.backward), outputs, strict=True)
            ]
            outputs = [new + old for new, old in zip(read, outputs, strict=True)] if number else read
        return torch.cat([outputs[0], outputs[1].flip(1)], -1)

    def lstm(self, lstm, x):
        torch, outputs = self.torch, []
        recurrent, projection = lstm.recurrent[...], lstm.projection[...]
        gates = x @ lstm.input[...] + lstm.bias[...]
        cell, output = x.new_zeros(len(x), RELEASED.lstm_dim), x.new_zeros(len(x), RELEASED.projection_dim)
        for t in range(x.shape[1]):
            i, j, f, o = (gates[:, t] + output @ recurrent).chunk(4, -1)
            cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(j)
            cell = cell.clamp(-RELEASED.cell_clip, RELEASED.cell_clip)
            output = (torch.sigmoid(o) * torch.tanh(cell)) @ projection
            output = output.clamp(-RELEASED.projection_clip, RELEASED.projection_clip)
            outputs.append(output)
        return torch.stack(outputs, 1)


def linear(layer, x):
    return x @ layer.kernel[...] + layer.bias[...]


def words(batch, token):
    """Character ids of words of 1 to 11 letters."""
    rng = np.random.default_rng(0)
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    drawn = ["".join(rng.choice(letters, rng.integers(1, 12))) for _ in range(batch * token)]
    return spell(drawn).reshape(batch, token, -1)


def operations(batch, token):
    """Floating-point operations of the matrix products and convolutions, the boundaries included."""
    characters, width = RELEASED.characters_per_word, sum(number for _, number in FILTERS)
    dim, cells = RELEASED.projection_dim, RELEASED.lstm_dim
    encoder = sum((characters - w + 1) * w * RELEASED.character_dim * n for w, n in FILTERS)
    encoder += RELEASED.num_highway_layers * 2 * width * width + width * dim
    lstms = RELEASED.num_layers * 2 * (2 * dim * 4 * cells + cells * dim)
    return 2 * (encoder + lstms) * batch * (token + 2)


def memory_read(dtype, token):
    """Bytes of the weights, read again for every word of a text, whatever the batch."""
    dim, cells = RELEASED.projection_dim, RELEASED.lstm_dim
    weights = RELEASED.num_layers * 2 * (dim * 4 * cells + cells * dim)
    return weights * np.dtype(dtype).itemsize * (token + 2)


@sweep(
    dtype=["float32"], shape=[(1, 24), (32, 24), (1, 128), (32, 128)], quick={"shape": [(1, 24), (32, 24)]}
)
def bench_elmo(compare, dtype, shape):
    model, ids = model_of(dtype), words(*shape)
    segments = np.ones(shape, np.int32)
    batch = Batch(ids, segments, *[np.zeros(shape, np.int32)] * 2, segments)
    on_device = jax.device_put(batch)

    def in_pytorch():
        peer = TorchElmo(model)
        return lambda: peer(peer.torch.tensor(ids, device=peer.device))

    def run(model, batch):
        return run_model(model, batch).hidden[-1]

    compare(
        lambda: np.asarray(run(model, batch).astype("float32")),
        {"PyTorch": in_pytorch},
        device=lambda: run(model, on_device),
        agree=agree_to(atol={"float32": 1e-4, "bfloat16": 0.02}[dtype]),
        what="ELMo, released size",
        operations=operations(*shape),
        read=memory_read(dtype, shape[1]),
        rate=shape[0] * shape[1],
        rate_of="words",
    )
