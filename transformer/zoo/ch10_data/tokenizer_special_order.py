"""The special tokens have other ids than the model's config."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CHECK = "check_tokenizer"
CAUGHT_BY = "ids 0 to 3 are"

wrong = Tokenizer(models.BPE(unk_token="<unk>"))
wrong.normalizer = normalizers.NFC()
wrong.pre_tokenizer = pre_tokenizers.Metaspace()
wrong.decoder = decoders.Metaspace()
special = ["<unk>", "<pad>", "<s>", "</s>"]
wrong.train_from_iterator(
    ["the cat is on the mat"], trainers.BpeTrainer(special_tokens=special, show_progress=False)
)
