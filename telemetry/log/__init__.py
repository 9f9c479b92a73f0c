"""The log protocol and its two implementations. `open_log` gives the one that a URL names."""
