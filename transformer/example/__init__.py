"""The running example: two sentences and a small trained model, through all chapters.

A chapter starts from `after(n - 1)`, what the chapter before it made of the sentences. It computes
its own step by its own code, with the weights of the model, and shows that the result is
`after(n)`. So the numbers of the twelve chapters together are one translation.

| n | what `after(n)` is | shape |
|---|---|---|
| 0 | source ids, padded | `b t`, 2 × 8 |
| 1 | embeddings | `b t d_model`, 2 × 8 × 24 |
| 2 | embeddings plus positions | the same |
| 3 | the result of head 2 in the encoder's first layer | `b t d_head`, 2 × 8 × 6 |
| 4 | the result of all four heads, after `w_o` | `b t d_model`, 2 × 8 × 24 |
| 5 | the same, added to the layer's input and normed | the same |
| 6 | the result of the first layer, with its feed-forward block | the same |
| 7 | the memory: the result of both layers of the encoder | the same |
| 8 | decoder states, for the right translations as decoder input | the same |
| 9 | logits | `b t vocab`, 2 × 8 × 588 |
| 10 | the `Batch` of both pairs | |
| 11 | the loss of this batch, without smoothing | one number |
| 12 | the translations | a list of two strings |

The sizes of a tensor all differ: 2 sentences of 8 tokens on either side, 4 heads, 24 features (6 a
head), 48 in the feed-forward block, 588 subwords. There are 2 + 2 layers in post-norm. `python -m
transformer.example` trains the model anew; the vocabulary is that of the course's translator.
"""

from transformer.example.steps import (
    SENTENCES,
    after,
    example_batch,
    example_model,
    example_tokenizer,
    head_projections,
    tokens,
    weights,
)

__all__ = [
    "SENTENCES",
    "after",
    "example_batch",
    "example_model",
    "example_tokenizer",
    "head_projections",
    "tokens",
    "weights",
]
