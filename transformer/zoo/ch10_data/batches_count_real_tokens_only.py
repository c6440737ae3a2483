"""The budget counts tokens without padding: one long sentence exceeds the memory."""

CHECK = "check_batches"
CAUGHT_BY = "Count tokens, padding included"


def wrong(pairs, max_tokens):
    groups = []
    used = 0
    for pair in sorted(pairs, key=lambda pair: len(pair[1])):
        need = max(len(pair[0]), len(pair[1]))
        if not groups or used + need > max_tokens:
            groups.append([])
            used = 0
        groups[-1].append(pair)
        used += need
    return groups
