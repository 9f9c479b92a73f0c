"""The web console and the HTTP API: what a maintainer watches at three in the morning, and what other tools read."""
