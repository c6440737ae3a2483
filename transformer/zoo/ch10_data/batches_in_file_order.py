"""Sentences are grouped in file order: most of a batch is padding."""

CHECK = "check_batches"
CAUGHT_BY = "of the tokens are padding"


def wrong(pairs, max_tokens):
    groups = [[]]
    for pair in pairs:
        width = max(len(row) for other in [*groups[-1], pair] for row in other)
        if groups[-1] and width * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(pair)
    return groups
