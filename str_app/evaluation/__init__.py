"""Evaluation: the field's protocol, metrics, tables and reports."""
