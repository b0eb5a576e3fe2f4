"""Decoders: a feature map in, characters out, one step at a time."""
