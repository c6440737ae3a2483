"""Known mistakes of chapter 2: positional encoding."""
