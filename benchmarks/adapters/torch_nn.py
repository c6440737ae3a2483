"""`torch.nn.Transformer`, with the embeddings, positions and output layer that it does not have."""

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.adapters.base import Peer
from benchmarks.work import DROPOUT, Size
from transformer.data import BOS, PAD
from transformer.positional_encoding import PositionalEncoding

warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")


class Seq2Seq(nn.Module):
    """The stacks of PyTorch, with one table for both embeddings and for the logits.

    It differs from ours by a norm after each stack, which `nn.Transformer` always has.
    """

    def __init__(self, size: Size, inner_dropout: bool = False):
        super().__init__()
        d = size.d_model
        self.embedding = nn.Embedding(size.vocabulary, d, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=d**-0.5)
        self.positions = PositionalEncoding(d, size.max_len)
        self.dropout = nn.Dropout(DROPOUT)
        self.scale = d**0.5
        self.bias = nn.Parameter(torch.zeros(size.vocabulary))
        self.stacks = nn.Transformer(
            d, size.n_heads, size.n_layers, size.n_layers, size.d_ff, DROPOUT, batch_first=True
        )
        if not inner_dropout:
            for layer in [*self.stacks.encoder.layers, *self.stacks.decoder.layers]:
                layer.dropout = nn.Identity()
                for attention in layer.modules():
                    if isinstance(attention, nn.MultiheadAttention):
                        attention.dropout = 0.0

    def embed(self, ids: Tensor) -> Tensor:
        """Return the sum of embeddings and positions."""
        return self.dropout(self.positions(self.embedding(ids) * self.scale))

    def encode(self, src: Tensor) -> Tensor:
        """Return the memory."""
        return self.stacks.encoder(self.embed(src), src_key_padding_mask=src == PAD)

    def decode(self, tgt: Tensor, memory: Tensor, src: Tensor) -> Tensor:
        """Return the decoder's output.

        Padding at the end of a target lies after all other tokens, so the causal mask hides it.
        """
        future = torch.ones(2 * [tgt.shape[1]], dtype=torch.bool, device=tgt.device).triu(1)
        return self.stacks.decoder(
            self.embed(tgt),
            memory,
            tgt_mask=future,
            tgt_is_causal=True,
            memory_key_padding_mask=src == PAD,
        )

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return F.linear(x, self.embedding.weight, self.bias)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.logits(self.decode(tgt, self.encode(src), src))


class TorchNN(Peer):
    """It has no search, so greedy is a tutorial's loop, which reads the whole prefix every step."""

    name = "torch.nn"
    works = ("train", "greedy", "one")
    slow_works = ("greedy",)

    def build(self, size: Size) -> Seq2Seq:
        return Seq2Seq(size)

    def output_bias(self) -> Tensor:
        return self.model.bias

    def last_gain(self) -> Tensor:
        return self.model.stacks.decoder.norm.weight

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src, tgt)

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return [self.write(src, steps) for src in batches]

    @torch.inference_mode()
    def write(self, src: Tensor, steps: int) -> Tensor:
        """Return the translation of one batch."""
        memory = self.model.encode(src)
        ids = src.new_full((len(src), 1), BOS)
        for _ in range(steps):
            states = self.model.decode(ids, memory, src)[:, -1]
            ids = torch.cat([ids, self.model.logits(states).argmax(-1, keepdim=True)], dim=1)
        return ids[:, 1:]
