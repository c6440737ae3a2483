"""Sines and cosines alternate, as in the paper, so each feature meets the weights of another."""

from transformer.positional_encoding import sinusoidal_positions

CHECK = "check_half_positions"
CAUGHT_BY = "here all sines come first"


def wrong(n_positions, d_model):
    return sinusoidal_positions(n_positions, d_model)
