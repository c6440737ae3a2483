"""Time and memory of this library beside its peers, on the same work, in one run: see benchmarks/README.md.

python -m benchmarks            # the comparison, into benchmarks/results.json
python -m benchmarks.newcomer   # training with each library's own defaults, into the same file
python -m benchmarks.curves     # cost against length, batch, width and depth, into benchmarks/curves.json
python -m benchmarks.quality    # scores by precision, of trainings on Multi30k, into benchmarks/quality.json
python -m benchmarks.draw       # pictures and tables from these files
"""
