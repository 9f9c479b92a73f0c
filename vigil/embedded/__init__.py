"""What production gets from servers of its own, run by `vigil up` instead: PostgreSQL from a wheel, an MQTT broker."""
