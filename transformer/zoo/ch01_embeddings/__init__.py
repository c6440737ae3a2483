"""Known mistakes of chapter 1: embeddings."""
