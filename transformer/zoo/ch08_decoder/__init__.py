"""Known mistakes of chapter 8: the masks and the decoder."""
