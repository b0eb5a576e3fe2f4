"""Recorded gates become pictures."""

import torch

from str_app.models.gates.layers import RefinedLSTM
from str_app.models.gates.statistics import watch_gates
from str_app.study.gate_plots import gate_histogram, gradient_norms


def test_pictures_name_gates_and_places():
    layer = RefinedLSTM(3, 4, bidirectional=True)
    with watch_gates(layer) as watched:
        layer(torch.randn(5, 2, 3))[0].sum().backward()
    gates = watched["l0"].gates
    for histograms in ({n: g.vanilla for n, g in gates.items()}, {n: g.effective for n, g in gates.items()}):
        picture = gate_histogram("Gates", histograms)
        assert all(f">{name}<" in picture for name in ("input", "forget", "output"))
    assert ">l0_reverse<" in gradient_norms("Gradients", watched)
