"""Fuzzing of everything that reads bytes from outside: `python -m tests.fuzz TARGET --seconds N`.

A target is a module with `SEEDS`, valid inputs to begin with, and `fuzz_one(data)`, which raises where an invariant is broken.
"""
