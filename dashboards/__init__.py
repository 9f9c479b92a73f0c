"""What people see: the web console and the Grafana boards. See docs/console.md and docs/boards.md."""
