"""From a network's steps to text: greedy, beam search with a prior, and within a lexicon.

Knows engines by `str_app.engines.base.Engine` alone, and no torch.
"""

from str_app.decoding.allowed import mask_of, parse_characters
from str_app.decoding.beam import Prior, beam_search
from str_app.decoding.lexicon import Trie, lexicon_search
from str_app.decoding.result import Decoded
from str_app.decoding.scoring import Scorer

__all__ = [
    "Decoded",
    "Prior",
    "Scorer",
    "Trie",
    "beam_search",
    "lexicon_search",
    "mask_of",
    "parse_characters",
]
