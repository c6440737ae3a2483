"""Embeddings are multiplied by the root of d_model, as in the paper, whatever the config says."""

from dataclasses import replace

from transformer.pretrained import PublishedTransformer, read_model

CHECK = "check_read_model"
CAUGHT_BY = "but scale_embedding is False"


def wrong(folder):
    model = read_model(folder)
    scaling = PublishedTransformer(replace(model.config, scale_embedding=True)).eval()
    scaling.load_state_dict(model.state_dict())
    return scaling
