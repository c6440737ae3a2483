"""Published checkpoints: their files, settings, names of tensors, tokens, and rules of search.

Chapter 13 (`transformer.pretrained`) builds the model from them. The extra `pretrained` installs
the packages that this needs beside the dependencies, which are imported late.
"""

from transformer.published.checking import check_vocabulary, fill_weights
from transformer.published.families import FAMILIES, read_options, settings_of
from transformer.published.hub import checkpoint_folder, is_checkpoint, is_hub_name
from transformer.published.search import SearchRules, read_rules, ruled, search_rows
from transformer.published.tensors import Unfilled, tensor_shapes
from transformer.published.tokens import PublishedTokenizer, read_tokenizer
from transformer.published.writing import position_tensors, write_folder

__all__ = [
    "FAMILIES",
    "PublishedTokenizer",
    "SearchRules",
    "Unfilled",
    "check_vocabulary",
    "checkpoint_folder",
    "fill_weights",
    "is_checkpoint",
    "is_hub_name",
    "position_tensors",
    "read_options",
    "read_rules",
    "read_tokenizer",
    "ruled",
    "search_rows",
    "settings_of",
    "tensor_shapes",
    "write_folder",
]
