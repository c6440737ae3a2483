"""Learn by doing: a folder of the learner's own, exercises, checks and diagnosis.

`python -m transformer course start mine` writes the folder. It is a package of its own, `mine`,
whose chapters import one another; what the learner has not written yet is borrowed from the
library. `exercise` says what an exercise is, and `exercises` holds those of each chapter.
"""

from transformer.course.stubs import borrow

__all__ = ["borrow"]
