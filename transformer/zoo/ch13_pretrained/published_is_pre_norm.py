"""Each norm stands before its sublayer, where the weights were trained with norms after it."""

from dataclasses import replace

from transformer.pretrained import PublishedTransformer

CHECK = "check_published_model"
CAUGHT_BY = "The norms come before the sublayers"


class wrong(PublishedTransformer):
    def __init__(self, config):
        super().__init__(replace(config, norm="pre"))
