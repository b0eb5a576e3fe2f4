"""Recurrent layers with refined gates and torch's own signatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from str_app.models.gates.gate import RefinedGate, feature_weight
from str_app.models.gates.initialization import init_uniform_
from str_app.models.gates.recurrence import run_recurrence
from str_app.models.gates.units import GRU, LSTM, MGU, GateOptions, State, Unit


class _RefinedLayer(nn.RNNBase):
    """Base of the three layers.

    Not a subclass of `nn.LSTM` or `nn.GRU`, which torch.compile does not trace.

    Attributes:
        unit: defines the equations.
        torch_mode: mode of `nn.RNNBase` that creates the parameters.
    """

    unit: Unit
    torch_mode: str
    gate: RefinedGate
    fused: bool

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        fused: bool = True,
        **options: Unpack[GateOptions],
    ) -> None:
        gate = self.unit.make_gate(options)
        if proj_size and (self.torch_mode != "LSTM" or gate.refine != "none"):
            raise ValueError(
                f"proj_size={proj_size} is only for an LSTM, and has no refined counterpart: leave it 0 or set "
                "refine='none'"
            )
        super().__init__(
            self.torch_mode,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )
        self.mode = self.unit.name
        directions = 2 if self.bidirectional else 1
        inputs = [self.input_size] + [self.hidden_size * directions] * (self.num_layers - 1)
        for layer_input in inputs:
            gate.check(self.unit.gates, layer_input, self.hidden_size)
        self.gate, self.fused = gate, fused
        rows = len(self.unit.blocks_of(gate)) * self.hidden_size
        resized = rows != self.get_parameter("weight_ih_l0").shape[0]
        if resized:
            for name, parameter in list(self.named_parameters()):
                setattr(self, name, nn.Parameter(parameter.new_empty(rows, *parameter.shape[1:])))
        if resized or gate.refine == "ur":
            self.reset_parameters()
        if gate.has_weight:
            for layer, layer_input in enumerate(inputs):
                for suffix in self._suffixes(layer):
                    weight = feature_weight(layer_input, self.hidden_size, device, dtype)
                    self.register_parameter(f"weight_feature_{suffix}", weight)
        self.flatten_parameters()

    def reset_parameters(self) -> None:
        """torch's initialisation; uniform-refine gates get their own biases."""
        super().reset_parameters()
        if self.bias and "gate" in self.__dict__ and self.gate.refine == "ur":
            init_uniform_(self)

    def flatten_parameters(self) -> None:
        """For cuDNN, which only runs vanilla LSTMs and GRUs; does nothing for others."""
        if "gate" in self.__dict__ and self._runs_torch_kernel():
            super().flatten_parameters()

    def _runs_torch_kernel(self) -> bool:
        if self.gate.refine != "none" or not self.gate.has_kernels:
            return False
        # torch.compile cannot save what oneDNN's LSTM passes to its backward pass. The loop has no projection.
        return self.mode == "GRU" or (
            self.mode == "LSTM" and (self.proj_size > 0 or not torch.compiler.is_dynamo_compiling())
        )

    def _suffixes(self, layer: int) -> list[str]:
        return [f"l{layer}", f"l{layer}_reverse"] if self.bidirectional else [f"l{layer}"]

    def _torch_forward(self, input: Any, hx: Any) -> Any:
        raise NotImplementedError(f"torch has no kernel for {self.mode}")

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's layers: output and h_n, or (h_n, c_n) for the LSTM."""
        if self._runs_torch_kernel():
            return self._torch_forward(input, hx)
        two_states = len(self.unit.states) == 2
        initial = None if hx is None else tuple(hx) if two_states else (hx,)
        run: Any = self._run_packed if isinstance(input, PackedSequence) else self._run_padded
        output, state = run(input, initial)
        return output, (state if two_states else state[0])

    def _check_width(self, input: Tensor) -> None:
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.size(-1)}"
            )

    def _run_packed(self, input: PackedSequence, hx: State | None) -> tuple[PackedSequence, State]:
        self._check_width(input.data)
        state = self._initial_state(int(input.batch_sizes[0]), input.data, hx)
        if hx is not None and input.sorted_indices is not None:
            state = tuple(s.index_select(1, input.sorted_indices) for s in state)
        data, state = self._run(input.data, input.batch_sizes.tolist(), state)
        if input.unsorted_indices is not None:
            state = tuple(s.index_select(1, input.unsorted_indices) for s in state)
        return PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices), state

    def _run_padded(self, input: Tensor, hx: State | None) -> tuple[Tensor, State]:
        name = type(self).__name__
        if input.dim() not in (2, 3):
            raise ValueError(f"{name}: expected input of 2 or 3 dimensions, got {tuple(input.shape)}")
        self._check_width(input)
        unbatched = input.dim() == 2
        if unbatched:
            input = input.unsqueeze(1)
            hx = None if hx is None else tuple(s.unsqueeze(1) for s in hx)
        elif self.batch_first:
            input = input.transpose(0, 1)
        T, B, _ = input.shape
        if T == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        data, state = self._run(input.reshape(T * B, self.input_size), [B] * T, self._initial_state(B, input, hx))
        output = data.view(T, B, data.shape[-1])
        if unbatched:
            return output.squeeze(1), tuple(s.squeeze(1) for s in state)
        return (output.transpose(0, 1) if self.batch_first else output), state

    def _initial_state(self, batch: int, input: Tensor, hx: State | None) -> State:
        expected = (self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)
        if hx is None:
            zeros = input.new_zeros(expected)
            return (zeros,) * len(self.unit.states)
        self.unit.check_states(hx, expected, suffix="_0")
        return hx

    def _run(self, data: Tensor, sizes: Sequence[int], state: State) -> tuple[Tensor, State]:
        """All layers over packed rows (N, I), `sizes` of them a step; a padded batch has equal sizes."""
        final_states: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for reverse, suffix in enumerate(self._suffixes(layer)):
                initial = tuple(s[len(final_states)] for s in state)
                output, final = run_recurrence(
                    self.unit,
                    self.gate.recorded_as(suffix),
                    data,
                    sizes,
                    initial,
                    {
                        name: getattr(self, f"{name}_{suffix}", None)
                        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_feature")
                    },
                    bool(reverse),
                    self.fused,
                )
                outputs.append(output)
                final_states.append(final)
            data = torch.cat(outputs, dim=-1) if len(outputs) > 1 else outputs[0]
            if self.dropout and self.training and layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, training=True)
        return data, tuple(torch.stack(states) for states in zip(*final_states, strict=True))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.gate}"


class RefinedLSTM(_RefinedLayer):
    """`nn.LSTM` whose gates can be refined (arXiv 2002.11338).

    Signature, inputs (PackedSequence and unbatched ones included), outputs and parameter names are those of `nn.LSTM`.
    With `refine="none"` it runs torch's kernels on the same parameters; state dicts load both ways. Otherwise
    `feature="linear"` adds `weight_feature_l{k}` (hidden_size, input size of layer k), with `_reverse` for the second
    direction.

    Under autocast the GEMM over all steps runs in the lower precision, the recurrence in that of the weights, which is
    that of the outputs too; those of `nn.LSTM` are in the lower one. torch.export takes a dynamic batch size, but, as
    with `nn.LSTM`, no dynamic length.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as for `nn.LSTM`.
        refine, gates, feature, activation: see `gate.RefinedGate`; gates from "input", "forget", "output". The
            default is + on input and output gates, which is better than vanilla gates at adding, aⁿbⁿ and over texts,
            shows no effect at counting between marks and copying, and is worse in a short run on scene text; × is
            better at aⁿbⁿ (docs/results/studies.md).
        squash: deprecated name of `activation`.
        fused: run each layer as one autograd function, where a kernel can take the tensors: compiled C++ on the CPU
            (`python -m str_app.models.kernels` builds it), Triton on a GPU. Otherwise, or with False, a loop over the
            steps runs, which is slower, gives the same values and gradients, and has second derivatives and
            forward-mode derivatives. torch.func transforms always run the loop.

    Raises:
        ValueError: unknown choice or gate; `feature="identity"` where a layer's input size is not hidden_size;
            `proj_size` with refined gates.
    """

    unit = LSTM
    torch_mode = "LSTM"
    _torch_forward = nn.LSTM.forward
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]


class RefinedGRU(_RefinedLayer):
    """`nn.GRU` whose gates, "reset" and "update", can be refined; otherwise as `RefinedLSTM`.

    The default is + on the reset gate: better than vanilla gates over texts, no effect shown in the synthetic tasks
    (docs/results/studies.md). × on an untrained update gate would erase the state at each step.

    `refine="ur"` has a fourth block of weights: the gate that refines the update gate.
    """

    unit = GRU
    torch_mode = "GRU"
    _torch_forward = nn.GRU.forward


class RefinedMGU(_RefinedLayer):
    """The minimal gated unit (Zhou et al. 2016, arXiv 1603.09420) with the signature of `nn.GRU`.

    h is multiplied by 1 − f', so with a feature that can be negative it may grow without bound where the state is
    carried on, as over texts, whatever the clipping of gradients (docs/explanation/gates.md). Hence the default
    activation, `"sigmoid"`. The default is ×, which has not diverged in any study (docs/results/studies.md); over texts
    by characters `refine="add"` is better, and `refine="mul", activation="tanh"` is the best at adding and counting
    between marks, over sequences that begin with a zero state.

    Otherwise as `RefinedGRU`; its only gate is "forget". Weights are stacked as in torch, blocks "forget" and "new":
    `weight_ih_l{k}` (2 H, I), `weight_hh_l{k}` (2 H, H), `bias_ih_l{k}`, `bias_hh_l{k}` (2 H,).
    """

    unit = MGU
    torch_mode = "RNN_TANH"  # torch has no MGU; this mode has parameters of the same names


LAYERS: dict[str, type[_RefinedLayer]] = {"LSTM": RefinedLSTM, "GRU": RefinedGRU, "MGU": RefinedMGU}
