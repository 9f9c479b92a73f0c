"""Grafana boards as code: one short builder function a board, one theme, one text table for both languages."""
