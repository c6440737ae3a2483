"""Features are taken from the two halves in turn, which is the way back from halves to pairs."""

from einops import rearrange

from transformer.positional_encoding import sinusoidal_positions

CHECK = "check_half_positions"
CAUGHT_BY = "the way back"


def wrong(n_positions, d_model):
    return rearrange(sinusoidal_positions(n_positions, d_model), "t (two i) -> t (i two)", two=2)
