"""Benchmarks, each run by one command; results in docs/benchmarks.md."""
