"""Trains the network that finds words in whole pictures."""
