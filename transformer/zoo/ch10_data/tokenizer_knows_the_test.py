"""The vocabulary is learned from training, validation and test texts."""

from transformer.data import train_tokenizer

CHECK = "check_tokenizer"
CAUGHT_BY = "do not occur in the training texts"

TRAIN = ["the cat is on the mat", "il caffè è sul tavolo"] * 3
TEST = ["zebras waltz quickly", "zebras waltz"] * 3
OPTIONS = {"train": TRAIN}
wrong = train_tokenizer(TRAIN + TEST, 120)
