"""Detectors: state over arrays of signals, driven by readings and the log's time. No database, no clock, no I/O."""
