"""Known mistakes of chapter 13: published weights."""
