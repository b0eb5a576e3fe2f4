"""The training objective: cross-entropy, and two auxiliary losses that help attention to align."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from str_app.models.decoders.ctc_head import CTCHead
from str_app.models.recognizer import Recognizer


class Objective(nn.Module):
    """The recogniser and its losses as one module, so that DistributedDataParallel can wrap it.

    The CTC head is not part of the recogniser: released weights do not contain it.

    Args:
        model: the network to train.
        label_smoothing: of the cross-entropy.
        ctc: compute the CTC loss; otherwise there is no CTC head and the loss is 0.
        attention: compute the attention loss; otherwise it is 0.
        loss_limit: samples whose cross-entropy exceeds so many nats per token contribute to no loss; 0: all contribute.
    """

    def __init__(
        self,
        model: Recognizer,
        label_smoothing: float,
        ctc: bool = True,
        attention: bool = True,
        loss_limit: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.ctc = CTCHead(model.backbone.out_channels, model.charset.num_classes) if ctc else None
        self.attention = attention
        self.label_smoothing = label_smoothing
        self.loss_limit = loss_limit

    def forward(self, canvases: Tensor, widths: Tensor, targets: Tensor, lengths: Tensor, boxes: Tensor) -> Tensor:
        """Sums over the batch, (3,): cross-entropy of characters and end tokens, CTC loss, attention loss.

        Args: the tensors of `str_app.training.samples.Batch`.
        """
        logits, attention, features = self.model(self.model.normalize(canvases), widths, targets)
        with torch.autocast(logits.device.type, enabled=False):
            counted = torch.arange(targets.shape[1], device=targets.device) <= lengths.unsqueeze(
                1
            )  # with the end token
            if self.loss_limit:
                kept = label_nats(logits.detach(), targets, counted) <= self.loss_limit * counted.sum(dim=1)
                logits, attention, features, boxes = logits[kept], attention[kept], features[kept], boxes[kept]
                targets, lengths, widths, counted = targets[kept], lengths[kept], widths[kept], counted[kept]
            characters = F.cross_entropy(
                logits[counted], targets[counted], label_smoothing=self.label_smoothing, reduction="sum"
            )
            stride = self.model.backbone.stride[1]
            ctc = attention_loss = torch.zeros_like(characters)
            if self.ctc is not None:
                columns = torch.div(widths + stride - 1, stride, rounding_mode="floor")
                ctc = self.ctc(features.float(), columns, targets, lengths)
            if self.attention:
                grid = (self.model.grid[0], features.shape[3])
                attention_loss = attention_outside_boxes(
                    attention, boxes, grid, self.model.preprocessing.height, stride
                )
        return torch.stack([characters, ctc, attention_loss])


def label_nats(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """−log of each label's probability, (B,), by logits (B, T, V), over the tokens of `counted` (B, T)."""
    nats = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    return (nats * counted).sum(dim=1)


def attention_outside_boxes(
    attention: Tensor, boxes: Tensor, grid: tuple[int, int], height: int, stride: int
) -> Tensor:
    """−log of the attention mass inside each character's box, summed over the characters with known boxes.

    Args:
        attention: (B, T, N) over the grid, row by row.
        boxes: (B, T, 4), x0, y0, x1, y1 in canvas pixels, NaN where unknown.
        grid: size of the feature map, (H', W').
        height: of the canvas.
        stride: number of canvas columns per grid column.
    """
    known = ~boxes[..., 0].isnan()  # (B, T)
    if not known.any():
        return attention.sum() * 0.0
    box = boxes[known]  # (K, 4)
    row_height = height / grid[0]
    top = torch.arange(grid[0], device=box.device) * row_height
    left = torch.arange(grid[1], device=box.device) * stride
    rows = (top < box[:, 3:4]) & (top + row_height > box[:, 1:2])  # (K, H'): cells that touch the box
    columns = (left < box[:, 2:3]) & (left + stride > box[:, 0:1])  # (K, W')
    inside = (rows.unsqueeze(2) & columns.unsqueeze(1)).flatten(1)  # (K, N)
    mass = (attention[known] * inside).sum(dim=-1)
    # A box outside the crop touches no cell and does not count.
    return -(mass.clamp_min(1e-6).log() * inside.any(dim=-1)).sum()
