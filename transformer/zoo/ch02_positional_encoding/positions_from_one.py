"""The positions begin with 1: the first row is no longer 0, 1, 0, 1, …"""

from transformer.positional_encoding import sinusoidal_positions

CHECK = "check_positions"
CAUGHT_BY = "positions begin with 1"


def wrong(n_positions, d_model):
    return sinusoidal_positions(n_positions + 1, d_model)[1:]
