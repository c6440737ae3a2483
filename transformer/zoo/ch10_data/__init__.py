"""Known mistakes of chapter 10: data."""
