"""Scenarios that come with the package: data only."""
