"""Without normalisation, è as one character and as e + accent are different words."""

from tokenizers import normalizers

from transformer.data import train_tokenizer

CHECK = "check_tokenizer"
CAUGHT_BY = "normalise to NFC"

wrong = train_tokenizer(["the cat is on the mat", "il caffè è sul tavolo"], 80)
wrong.normalizer = normalizers.Replace("~", "-")
