"""Without an unknown token, characters that it does not know are dropped."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from transformer.data import SPECIAL

CHECK = "check_tokenizer"
CAUGHT_BY = "leaves no trace"

wrong = Tokenizer(models.BPE())
wrong.normalizer = normalizers.NFC()
wrong.pre_tokenizer = pre_tokenizers.Metaspace()
wrong.decoder = decoders.Metaspace()
trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False)
wrong.train_from_iterator(["the cat is on the mat", "il caffè è sul tavolo"], trainer)
