"""The edge under random faults: `python -m tests.soak --minutes 30 [--seed N]`. See docs/benchmarks.md, Soak."""
