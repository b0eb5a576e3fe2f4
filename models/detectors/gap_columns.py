"""What the columns of the network of words and gaps mean: for the network, its training, and what reads them."""

from __future__ import annotations

HEIGHT = 32  # pixels, to which a line is scaled
STRIDE = 2  # pixels of the scaled line's width for one column of the output
