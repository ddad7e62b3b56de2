"""Cli: the front door, one module per command."""
