"""Known mistakes of chapter 11: training."""
