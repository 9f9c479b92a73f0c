"""Pure numpy functions: arrays in, new arrays out. No state, no clock, no I/O."""
