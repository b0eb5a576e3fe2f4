"""Starting a model from another one's weights, also when the charset differs."""

from __future__ import annotations

import torch

from models.recognizer import Recognizer

_POSITIONS = "decoder.attention.position"
_PER_CLASS = ("decoder.embedding.weight", "decoder.classifier.weight", "decoder.classifier.bias")


@torch.no_grad()
def transfer_weights(source: Recognizer, target: Recognizer) -> list[str]:
    """Copy every weight of `source` that fits `target`; rows of characters that both know are copied one by one.

    On a wider canvas, columns beyond the source's last begin as copies of its last.

    Returns:
        Names of the target's tensors that kept their fresh values, wholly (another shape or new) or in part (the
        rows of characters that the source does not know).
    """
    theirs = source.state_dict()
    fresh: list[str] = []
    shared = [char for char in target.charset.characters if char in source.charset]
    ours_rows = [0, *(target.charset.encode(char)[0] for char in shared)]
    their_rows = [0, *(source.charset.encode(char)[0] for char in shared)]
    for name, tensor in target.state_dict().items():
        if name not in theirs:
            fresh.append(name)
        elif name in _PER_CLASS and tensor.shape[1:] == theirs[name].shape[1:]:
            tensor[ours_rows] = theirs[name][their_rows]
            if len(ours_rows) < len(tensor):
                fresh.append(name)
        elif name == _POSITIONS and len(tensor) == len(theirs[name]):  # (H', W', A)
            known = torch.arange(tensor.shape[1]).clamp_max(theirs[name].shape[1] - 1)
            tensor.copy_(theirs[name][:, known])
        elif tensor.shape == theirs[name].shape:
            tensor.copy_(theirs[name])
        else:
            fresh.append(name)
    return fresh
