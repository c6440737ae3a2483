"""Known mistakes of chapter 14: data parallelism."""
