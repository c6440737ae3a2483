"""Padding, the first token of every target, is not banned from what is written after it."""

from dataclasses import asdict

from transformer.pretrained import PublishedConfig, read_model

CHECK = "check_read_model"
CAUGHT_BY = "it writes padding"


class Unbanned(PublishedConfig):
    @property
    def banned_ids(self):
        return [i for i in self.banned if i != self.pad_id]


def wrong(folder):
    model = read_model(folder)
    model.config = Unbanned(**asdict(model.config))
    return model
