"""Edge agents: read equipment over Modbus and MQTT, journal, forward. See docs/edge.md."""
