"""The tree of a beam search: every continuation that it tried, and what became of each."""

import math
from typing import NamedTuple

from transformer.explorer.recording import Extensions
from transformer.model import Config

KEPT = "kept"
FINISHED = "finished"
PRUNED = "pruned"
OPEN = "open"
"""What becomes of a continuation: the search goes on with it, it is complete, it is given up, or
it was still alive when the search had found enough."""


class Node(NamedTuple):
    """A token that continues a hypothesis.

    `parent` is the index of a node in the step before, -1 in the first step; `score` is the
    log-probability of the hypothesis up to here.
    """

    token: int
    parent: int
    score: float
    state: str


def beam_tree(
    record: list[Extensions], config: Config, beam_size: int, max_len: int
) -> list[list[Node]]:
    """Return the nodes of each step, best first; the arguments are those of the search."""
    tree: list[list[Node]] = []
    for t, step in enumerate(record, start=1):
        following = record[t] if t < len(record) else None
        parents = rows_of(record[t - 2], step, tree[-1]) if t > 1 else [-1]
        kept = set(zip(following.parents, following.read)) if following else set()
        nodes = []
        for number, (score, row, token) in enumerate(
            zip(step.scores, step.rows, step.tokens, strict=True)
        ):
            ended = (token == config.eos_id or t == max_len) and number < beam_size
            alive = following is None and token != config.eos_id
            state = FINISHED if ended else KEPT if (row, token) in kept else PRUNED
            state = OPEN if state == PRUNED and alive else state
            if math.isfinite(score):
                nodes.append(Node(token, parents[row], score, state))
        tree.append(nodes)
    return tree


def rows_of(before: Extensions, step: Extensions, nodes: list[Node]) -> list[int]:
    """Return for each row of a step the index of its node among those of the step before."""
    continued = list(zip(before.rows, before.tokens))[: len(nodes)]
    places = {pair: i for i, pair in enumerate(continued)}
    return [places.get(pair, -1) for pair in zip(step.parents, step.read)]


def rank(node: Node, length: int, penalty: float) -> float:
    """Return the score by which finished hypotheses are compared: log-probability / length ** α."""
    return node.score / length**penalty


def best_path(tree: list[list[Node]], penalty: float) -> list[int]:
    """Return the index of the best finished hypothesis's node in each step, up to its end."""
    ends = [
        (rank(node, t + 1, penalty), t, i)
        for t, nodes in enumerate(tree)
        for i, node in enumerate(nodes)
        if node.state == FINISHED
    ]
    _, t, i = max(ends, key=lambda end: end[0])
    path = [i]
    for step in range(t, 0, -1):
        path.append(tree[step][path[-1]].parent)
    return path[::-1]
