"""Greedy search that goes on after </s> until max_len."""

import torch

from transformer.inference import decoding

CHECK = "check_greedy"
CAUGHT_BY = "tokens follow </s>"


def wrong(model, src, max_len=64):
    tgt = src.new_full((len(src), 1), model.config.bos_id)
    with decoding(model):
        for _ in range(max_len):
            logits = model(src, tgt)[:, -1]
            logits[:, [model.config.pad_id, model.config.bos_id]] = -torch.inf
            tgt = torch.cat([tgt, logits.argmax(-1, keepdim=True)], dim=1)
    return tgt[:, 1:]
