"""The heads are split well and put together by view: the words of a sentence are mixed up."""

from transformer.multi_head import MultiHeadAttention

CHECK = "check_multi_head"
CAUGHT_BY = "heads are merged by view"


class wrong(MultiHeadAttention):
    def attend(self, x, k, v, mask=None):
        return self.w_o(self.kernel(self.split(self.w_q(x)), k, v, mask).reshape(x.shape))
