"""Finds what is wrong: pure kernels, detectors with state, one worker. See docs/analytics.md."""
