"""The reader takes the file's layers and tables only, and the bias of the logits stays at 0."""

import torch

from transformer.pretrained import read_model

CHECK = "check_read_model"
CAUGHT_BY = "final_logits_bias, is left out"


def wrong(folder):
    model = read_model(folder)
    with torch.no_grad():
        model.bias.zero_()
    return model
