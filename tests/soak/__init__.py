"""The edge under random faults for as long as one likes: `python -m tests.soak --minutes 30 [--seed N]`. See docs/benchmarks.md."""
