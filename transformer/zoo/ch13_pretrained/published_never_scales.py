"""Rows of the table are used as they are, whatever the config says of a factor."""

from dataclasses import replace

from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "is not multiplied by"


class wrong(PublishedTransformer):
    def __init__(self, config):
        super().__init__(replace(config, scale_embedding=False))
