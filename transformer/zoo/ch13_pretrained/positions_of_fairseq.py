"""The frequencies are those of fairseq's models, which divide by d_model/2 - 1."""

from transformer.pretrained import fairseq_positions

CHECK = "check_half_positions"
CAUGHT_BY = "The frequencies are fairseq's"


def wrong(n_positions, d_model):
    return fairseq_positions(n_positions, d_model)
