"""Known mistakes of chapter 7: the encoder."""
