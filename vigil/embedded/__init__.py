"""Parts that `vigil up` brings along: the PostgreSQL and the MQTT broker of the embedded default."""
