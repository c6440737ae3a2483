"""The tokenizer adds <s> and </s>, and so does the batch: the model writes them twice."""

from tokenizers import processors

from transformer.data import train_tokenizer

CHECK = "check_tokenizer"
CAUGHT_BY = "encoding .* adds"

wrong = train_tokenizer(["the cat is on the mat", "il caffè è sul tavolo"], 80)
wrong.post_processor = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
)
