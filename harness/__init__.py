"""Harness: owns the machines, runs scenarios in them and seals what was recorded."""
