"""Refined gates, and the recurrent cells and layers that use them (arXiv 2002.11338)."""
