"""x-transformers: its encoder and decoder as in the paper, and its `generate` with a cache."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from x_transformers import AutoregressiveWrapper, Decoder, Encoder, TransformerWrapper

from benchmarks.adapters.base import Peer
from benchmarks.work import DROPOUT, Size
from transformer.data import BOS, PAD
from transformer.positional_encoding import sinusoidal_positions


class Sinusoids(nn.Module):
    """Positions from a table; its own are computed at every call, and in float32 only."""

    def __init__(self, size: Size):
        super().__init__()
        self.register_buffer(
            "table", sinusoidal_positions(size.max_len, size.d_model), persistent=False
        )

    def forward(self, ids: Tensor, offset: int = 0, **_) -> Tensor:
        return self.table[offset : offset + ids.shape[1]]


class Seq2Seq(nn.Module):
    """`XTransformer` with its output tied to the embeddings, for which that class has no option.

    It differs from ours: there is no bias in attention's projections and in norms, and embeddings
    are not multiplied by √d.
    """

    def __init__(self, size: Size):
        super().__init__()
        layers = dict(
            dim=size.d_model,
            depth=size.n_layers,
            heads=size.n_heads,
            pre_norm=False,
            attn_dim_head=size.d_model // size.n_heads,
            attn_flash=True,
            attn_sublayer_dropout=DROPOUT,
            ff_mult=size.d_ff / size.d_model,
            ff_custom_activation=nn.ReLU(),
            ff_sublayer_dropout=DROPOUT,
        )
        vocabulary = dict(
            num_tokens=size.vocabulary,
            max_seq_len=size.max_len,
            use_abs_pos_emb=False,
            emb_dropout=DROPOUT,
        )
        self.encoder = TransformerWrapper(
            **vocabulary, return_only_embed=True, attn_layers=Encoder(**layers)
        )
        table = self.encoder.token_emb
        output = nn.Linear(size.d_model, size.vocabulary)
        output.weight = table.emb.weight
        nn.init.zeros_(output.bias)
        decoder = Decoder(**layers, cross_attend=True)
        decoder = TransformerWrapper(
            **vocabulary, token_emb=table, to_logits=output, attn_layers=decoder
        )
        self.encoder.pos_emb = Sinusoids(size)
        decoder.pos_emb = Sinusoids(size)
        self.decoder = AutoregressiveWrapper(decoder, ignore_index=PAD, pad_value=PAD)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.decoder.net(tgt, context=self.encode(src), context_mask=src != PAD)

    def encode(self, src: Tensor) -> Tensor:
        """Return the memory.

        The option `mask` would also set the outputs of padding to 0: one more operation, and not
        possible in bfloat16.
        """
        return self.encoder(src, self_attn_kv_mask=src != PAD)


class XTransformers(Peer):
    """Only greedy search: its beam search cannot stop at </s> and has no length penalty."""

    name = "x-transformers"
    works = ("train", "greedy", "one")

    def build(self, size: Size) -> Seq2Seq:
        return Seq2Seq(size)

    def output_bias(self) -> Tensor:
        return self.model.decoder.net.to_logits.bias

    def last_gain(self) -> Tensor:
        norms, _, _ = self.model.decoder.net.attn_layers.layers[-1]
        return norms[-1].gamma

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        return self.model(src, tgt)

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return [self.write(src, steps) for src in batches]

    @torch.inference_mode()
    def write(self, src: Tensor, steps: int) -> Tensor:
        """Return the translation of one batch."""
        source = dict(context=self.model.encode(src), context_mask=src != PAD)
        start = src.new_full((len(src), 1), BOS)
        return self.model.decoder.generate(start, steps, temperature=0.0, **source)
