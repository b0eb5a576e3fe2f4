"""The loss of a word detector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from str_app.models.detectors.word_detector import WordMaps
from str_app.training.detection.samples import DetectorBatch

NEGATIVES = 3.0  # hard cells outside of cores per cell inside (as in DB, arXiv 1911.08947)
LEAST_NEGATIVES = 500  # of a crop: those without words teach too


class Losses(NamedTuple):
    """Parts of the loss, scalars."""

    cores: Tensor
    overlap: Tensor
    distances: Tensor
    directions: Tensor

    def total(self) -> Tensor:
        """The weighted sum."""
        return self.cores + self.overlap + self.distances + self.directions


def detector_losses(maps: WordMaps, batch: DetectorBatch) -> Losses:
    """Cross-entropy of the cores over all positive and the hardest negative cells, their dice loss, the error of
    logarithmic distances, and the error of directions."""
    logits, edges = maps.cores.float(), maps.edges.float()
    counted = batch.counted.unsqueeze(1)
    losses = F.binary_cross_entropy_with_logits(logits, batch.cores, reduction="none") * counted
    positive = (batch.cores > 0.5).float() * counted
    negatives = int(NEGATIVES * float(positive.sum())) + LEAST_NEGATIVES * len(logits)
    hard = torch.topk((losses * (1 - positive)).flatten(), min(negatives, losses.numel())).values
    cores = (losses * positive).sum() / positive.sum().clamp_min(1) + NEGATIVES * hard.mean()
    scores = torch.sigmoid(logits) * counted
    target = batch.cores * counted
    overlap = 1 - (2 * (scores * target).sum() + 1) / (scores.sum() + target.sum() + 1)
    weights = batch.edge_weights.unsqueeze(1)
    sum_of_weights = weights.sum().clamp_min(1e-6)
    distance_errors = F.smooth_l1_loss(edges[:, :2], batch.edges[:, :2], reduction="none", beta=0.1)
    distances = (distance_errors * weights).sum() / sum_of_weights
    direction_errors = (edges[:, 2:] - batch.edges[:, 2:]).square()
    directions = (direction_errors * weights).sum() / sum_of_weights
    return Losses(cores, overlap, distances, directions)
