"""The edge beside its peer, Telegraf: the same devices, one run, CPU seconds of the process. See benchmarks.edge.__main__."""
