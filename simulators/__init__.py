"""Simulated equipment on real Modbus and MQTT, and the replay of recorded feeds. See docs/simulators.md."""
