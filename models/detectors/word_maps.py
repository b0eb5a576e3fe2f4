"""What the maps of a word detector mean: for the network, the targets of its training, and what reads them."""

from __future__ import annotations

MULTIPLE = 32  # pixels: height and width of the input are multiples of it
CORE_STRIDE = 2  # pixels per cell of the core map
EDGE_STRIDE = 4  # pixels per cell of the edge maps
DISTANCE_UNIT = 8.0  # pixels: distances are exp(output) of this unit
# The core of a word is its quad without this share of its height at the top, the bottom, and both ends: the cores of
# words that touch are still half a height apart. Narrow words lose this share of their width instead.
INSET = 0.25
