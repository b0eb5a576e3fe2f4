"""An auxiliary CTC classifier on the feature map, used in training only: it aligns before attention does."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class CTCHead(nn.Module):
    """Classifies every column of the feature map; class 0, the decoder's end token, is the CTC blank.

    Args:
        channels: C of the feature map.
        num_classes: as the decoder's.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, features: Tensor, columns: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """CTC loss, summed over the batch.

        Args:
            features: (B, C, H', W').
            columns: int64 (B,), columns of the feature map that the crop covers.
            targets: int64 (B, T), characters first, 0 from the end token on.
            lengths: int64 (B,), characters of each label. A label that is too long for its columns contributes 0.
        """
        logits = self.classifier(features.mean(dim=2).permute(2, 0, 1))  # (W', B, V)
        if not len(features):
            return logits.sum()  # 0, with a gradient for every weight
        log_probs = logits.log_softmax(-1)
        return F.ctc_loss(log_probs, targets, columns, lengths, blank=0, reduction="sum", zero_infinity=True)
