"""Measurements: limits of a model, speed of the gate layers."""
