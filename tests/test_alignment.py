"""Test which source tokens a translation attends to."""

import torch

from transformer.alignment import attention_rows, cross_attention_weights
from transformer.checks.fixtures import small_model
from transformer.data import PAD, train_tokenizer
from transformer.decoder import padding_mask
from transformer.model import Config, Transformer
from transformer.multi_head import head_weights

SRC = torch.tensor([[3, 4, 5, 2], [6, 2, PAD, PAD]])
TGT = torch.tensor([[1, 7, 8], [1, 3, PAD]])


def test_weights_are_those_of_the_layers() -> None:
    model = small_model(dropout=0.3).train()
    found = cross_attention_weights(model, SRC, TGT)
    assert len(found) == len(model.decoder.layers)
    model.eval()
    with torch.no_grad():
        memory = model.encode(SRC)
        layer = model.decoder.layers[0]
        x = model.embed(TGT)
        x = layer.residuals[0](x, lambda x: layer.self_attention(x, x, model.target_mask(TGT)))
        want = head_weights(layer.cross_attention, x, memory, padding_mask(SRC, PAD))
    torch.testing.assert_close(found[0], want)
    torch.testing.assert_close(found[0].sum(-1), torch.ones(found[0].shape[:-1]))
    assert (found[0][1, :, :, 2:] == 0).all(), "padding gets nothing"


def test_rows_have_a_weight_for_each_pair_of_tokens() -> None:
    texts = ["the cat sleeps", "il gatto dorme"]
    tokenizer = train_tokenizer(texts * 3, 60)
    config = Config.tiny(tokenizer.get_vocab_size(), d_model=16, n_heads=2, n_layers=3, d_ff=16)
    pairs = [(texts[0], texts[1]), (texts[0], ""), (texts[0], 300 * texts[1]), ("猫", texts[1])]
    row, *others = attention_rows(Transformer(config), tokenizer, pairs)
    assert others == 3 * [{"source": [], "target": [], "weights": []}]
    assert row["source"][-1] == row["target"][-1] == "</s>"
    assert "".join(row["target"][:-1]) == "▁il▁gatto▁dorme"
    assert len(row["weights"]) == 3
    for matrix in row["weights"]:
        assert len(matrix) == len(row["target"])
        assert {len(line) for line in matrix} == {len(row["source"])}
        assert all(abs(sum(line) - 1) < 0.02 for line in matrix)
