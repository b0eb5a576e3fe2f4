"""The GPU's kernels compile for real processors, which needs Triton but no GPU.

Their values and gradients are compared with the loop of cells in tests/models/gates/test_paths.py, by Triton's
interpreter.
"""

import os

import pytest
import torch

from str_app.models.kernels import recurrence

triton = pytest.importorskip("triton", reason="needs Triton: make triton-test")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from str_app.models.kernels import triton_steps  # noqa: E402

KERNELS = [
    name
    for name, item in vars(triton_steps).items()
    if isinstance(item, triton.JITFunction) and "acts" in item.arg_names
]
KEPT = {"before_h", "before_c", "all_tanh_c", "candidate_hh"}  # stored for the backward pass only


def source(name, element, join, featured, keep):
    """A kernel with arrays of `element`, as `_Launcher.launch` calls it."""
    kernel, types, constants = getattr(triton_steps, name), {}, {}
    fixed = {"KEEP": keep, "H": 37, "BLOCK": triton_steps.BLOCK}
    fixed["DTYPE"] = triton.language.float64 if element == "fp64" else triton.language.float32
    for argument in kernel.arg_names:
        absent = argument in KEPT and not keep and "backward" not in name
        if argument in ("start", "elements"):
            types[argument] = "i32"
        elif argument.isupper():
            constants[argument] = fixed.get(argument, join)
        elif absent or (argument in ("feature", "d_feature") and not featured):
            constants[argument] = None
        else:
            types[argument] = f"*{element}"
    return ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constants)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("element", ["fp32", "bf16", "fp16", "fp64"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_compile(name, element, architecture):
    for join, featured, keep in ((0, False, True), (1, True, False), (2, True, True)):
        compiled = triton.compile(source(name, element, join, featured, keep), GPUTarget("cuda", architecture, 32))
        assert compiled.asm["cubin"]


def test_there_is_a_kernel_for_each_step():
    assert len(KERNELS) == 8
    assert set(triton_steps._FUNCTIONS) == {
        f"{unit}_{way}" for unit in ("lstm", "gru", "mgu") for way in ("forward", "backward")
    }


def test_tensors_elsewhere_are_left_to_others(monkeypatch):
    """On the CPU nothing is launched; where kernels run, all tensors must be there and of one dtype."""
    x = torch.randn(2, 3)
    assert recurrence.find_steps(2, x) is None
    monkeypatch.setattr(recurrence, "GPU", "cpu")
    assert recurrence.find_steps(2, x, None, x) is triton_steps.run_steps
    assert recurrence.find_steps(2, x, x.double()) is None
    assert recurrence.find_steps(2, x, uniform=True) is None
    assert recurrence.find_steps(2, x.to(torch.int64)) is None
