"""Known mistakes of chapter 4: multi-head attention."""
