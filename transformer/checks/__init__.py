"""Checks that find the usual mistakes.

Each check takes an implementation with the signature of its chapter. It prints one line if the
implementation is right, and raises a CheckError otherwise: what was observed, on which input, and
what usually causes it.

    >>> from transformer.checks import check_attention
    >>> check_attention(attention)
    attention: right (equal to PyTorch, masks, empty rows, float16 to float64)

There is one module for each chapter, and `scoring` for BLEU and chrF. They share `harness` (how a
check works), `twins` (PyTorch's own layers with our weights) and `fixtures` (small models, ids and
masks).
"""

from transformer.checks.ch01_embeddings import check_embedding
from transformer.checks.ch02_positional_encoding import check_positional_encoding, check_positions
from transformer.checks.ch03_attention import check_attention, check_attention_weights
from transformer.checks.ch04_multi_head import check_head_weights, check_multi_head
from transformer.checks.ch05_residual_norm import check_layer_norm, check_residual
from transformer.checks.ch06_feed_forward import check_feed_forward
from transformer.checks.ch07_encoder import check_encoder, check_encoder_layer
from transformer.checks.ch08_decoder import (
    check_causal_mask,
    check_decoder,
    check_decoder_layer,
    check_padding_mask,
)
from transformer.checks.ch09_model import check_model
from transformer.checks.ch10_data import check_batches, check_pad, check_tokenizer
from transformer.checks.ch11_training import check_loss, check_schedule, check_trainer
from transformer.checks.ch12_inference import (
    check_beam_search,
    check_decode_position,
    check_greedy,
    check_incremental,
    check_sample,
)
from transformer.checks.ch13_pretrained import (
    check_half_positions,
    check_layer_names,
    check_published_model,
    check_read_model,
)
from transformer.checks.ch14_distributed import check_shard
from transformer.checks.harness import CheckError
from transformer.checks.scoring import check_scores

__all__ = [
    "CheckError",
    "check_attention",
    "check_attention_weights",
    "check_batches",
    "check_beam_search",
    "check_causal_mask",
    "check_decode_position",
    "check_decoder",
    "check_decoder_layer",
    "check_embedding",
    "check_encoder",
    "check_encoder_layer",
    "check_feed_forward",
    "check_greedy",
    "check_half_positions",
    "check_head_weights",
    "check_incremental",
    "check_layer_names",
    "check_layer_norm",
    "check_loss",
    "check_model",
    "check_multi_head",
    "check_pad",
    "check_padding_mask",
    "check_positional_encoding",
    "check_positions",
    "check_published_model",
    "check_read_model",
    "check_residual",
    "check_sample",
    "check_schedule",
    "check_scores",
    "check_shard",
    "check_tokenizer",
    "check_trainer",
]
