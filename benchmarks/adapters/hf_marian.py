"""Marian in Hugging Face transformers: the paper's architecture, and `generate` with a cache."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import MarianConfig, MarianMTModel
from transformers.utils import logging

from benchmarks.adapters.base import Peer
from benchmarks.work import DROPOUT, Size
from transformer.data import BOS, EOS, PAD

logging.set_verbosity_error()


class Marian(Peer):
    """It differs from ours: the bias of the logits is fixed; sines and cosines do not alternate."""

    name = "hf-marian"

    def build(self, size: Size) -> MarianMTModel:
        sides = {f"{side}_layers": size.n_layers for side in ("encoder", "decoder")}
        sides |= {f"{side}_attention_heads": size.n_heads for side in ("encoder", "decoder")}
        sides |= {f"{side}_ffn_dim": size.d_ff for side in ("encoder", "decoder")}
        config = MarianConfig(
            vocab_size=size.vocabulary,
            d_model=size.d_model,
            **sides,
            dropout=DROPOUT,
            attention_dropout=0.0,
            activation_dropout=0.0,
            activation_function="relu",
            scale_embedding=True,
            init_std=size.d_model**-0.5,
            max_position_embeddings=size.max_len,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            decoder_start_token_id=BOS,
            forced_eos_token_id=None,
        )
        return MarianMTModel._from_config(config, attn_implementation="sdpa")

    def output_bias(self) -> Tensor:
        return self.model.final_logits_bias

    def last_gain(self) -> Tensor:
        return self.model.model.decoder.layers[-1].final_layer_norm.weight

    def logits(self, src: Tensor, tgt: Tensor) -> Tensor:
        mask = (src != PAD).long()
        return self.model(
            input_ids=src, attention_mask=mask, decoder_input_ids=tgt, use_cache=False
        ).logits

    def greedy(self, batches: Sequence[Tensor], steps: int) -> list[Tensor]:
        return self.beam(batches, steps, beam_size=1)

    @torch.inference_mode()
    def beam(self, batches: Sequence[Tensor], steps: int, beam_size: int) -> list[Tensor]:
        how = dict(num_beams=beam_size, do_sample=False, max_new_tokens=steps, use_cache=True)
        return [
            self.model.generate(src, attention_mask=(src != PAD).long(), **how)[:, 1:]
            for src in batches
        ]
