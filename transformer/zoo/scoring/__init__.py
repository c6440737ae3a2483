"""Known mistakes with scores."""
