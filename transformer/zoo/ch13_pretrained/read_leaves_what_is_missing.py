"""Tensors that a file lacks keep their random first weights, which strict=False permits."""

from pathlib import Path

from safetensors.torch import load_file

from transformer.pretrained import PublishedConfig, PublishedTransformer, published_names
from transformer.published import read_options

CHECK = "check_read_model"
CAUGHT_BY = "without .+ was accepted"


def wrong(folder):
    model = PublishedTransformer(PublishedConfig(**read_options(folder)))
    tensors = load_file(Path(folder) / "model.safetensors")
    tensors["final_logits_bias"] = tensors["final_logits_bias"][0]
    names = {theirs: ours for ours, theirs in published_names(model).items()}
    found = {names[theirs]: tensor for theirs, tensor in tensors.items() if theirs in names}
    model.load_state_dict(found, strict=False)
    return model.eval()
