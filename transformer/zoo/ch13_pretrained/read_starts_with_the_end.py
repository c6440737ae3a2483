"""Decoding starts with </s>, as in fairseq's models, instead of the token in the config."""

from dataclasses import replace

from transformer.pretrained import read_model

CHECK = "check_read_model"
CAUGHT_BY = "Marian starts with padding"


def wrong(folder):
    model = read_model(folder)
    model.config = replace(model.config, bos_id=model.config.eos_id)
    return model
