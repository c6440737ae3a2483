"""Greedy search goes on after </s> until max_len."""

import torch

from transformer.inference import inference_context, mask_special_tokens

CHECK = "check_greedy"
CAUGHT_BY = "tokens follow </s>"


def wrong(model, src, max_len=64):
    tgt = src.new_full((len(src), 1), model.config.bos_id)
    with inference_context(model):
        for _ in range(max_len):
            logits = mask_special_tokens(model(src, tgt)[:, -1], model.config)
            tgt = torch.cat([tgt, logits.argmax(-1, keepdim=True)], dim=1)
    return tgt[:, 1:]
