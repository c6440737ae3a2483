"""Positions are added to the source and forgotten on the target's side."""

from transformer.model import Transformer

CHECK = "check_model"
CAUGHT_BY = "target gets no positions"


class wrong(Transformer):
    def states(self, tgt, memory, src):
        positions, self.positions = self.positions, lambda x, start=0: x
        try:
            return super().states(tgt, memory, src)
        finally:
            self.positions = positions

    def __setattr__(self, name, value):
        if name == "positions" and "positions" in self.__dict__.get("_modules", {}):
            self._modules.pop(name) if not hasattr(value, "table") else None
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)
