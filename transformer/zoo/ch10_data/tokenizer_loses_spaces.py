"""Words are split at spaces that decoding cannot restore."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from transformer.data import SPECIAL

CHECK = "check_tokenizer"
CAUGHT_BY = "the spaces are lost"

wrong = Tokenizer(models.BPE(unk_token="<unk>"))
wrong.normalizer = normalizers.NFC()
wrong.pre_tokenizer = pre_tokenizers.Whitespace()
wrong.decoder = decoders.Fuse()
trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=SPECIAL, show_progress=False)
wrong.train_from_iterator(["the cat is on the mat", "il caffè è sul tavolo"], trainer)
