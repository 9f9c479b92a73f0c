"""From findings to alarms that reach a person. See docs/alerting.md."""
