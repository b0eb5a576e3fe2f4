"""Backbones: a crop in, a feature map out."""
