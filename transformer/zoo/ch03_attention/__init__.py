"""Known mistakes of chapter 3: attention."""
