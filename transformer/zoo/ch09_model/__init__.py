"""Known mistakes of chapter 9: the whole model."""
