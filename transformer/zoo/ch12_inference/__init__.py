"""Known mistakes of chapter 12: inference."""
