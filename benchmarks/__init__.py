"""Time and memory of this library beside its peers, on the same work; see benchmarks/README.md.

python -m benchmarks            # the comparison, into benchmarks/results.json
python -m benchmarks.newcomer   # training with each library's defaults, into the same file
python -m benchmarks.curves     # cost by length, batch, width, depth, into benchmarks/curves.json
python -m benchmarks.quality    # scores by precision, on Multi30k, into benchmarks/quality.json
python -m benchmarks.draw       # pictures and tables from these files
"""
