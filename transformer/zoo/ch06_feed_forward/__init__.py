"""Known mistakes of chapter 6: the feed-forward block."""
