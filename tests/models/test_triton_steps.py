"""The GPU's kernels compile for real processors, which needs Triton but no GPU.

What they compute is held to the loop of cells in test_refined_paths.py, by Triton's interpreter.
"""

import os

import pytest
import torch

from str_app.models.kernels import fused

triton = pytest.importorskip("triton", reason="needs Triton: make triton-test")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted kernels cannot be compiled", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from str_app.models.kernels import triton_steps  # noqa: E402

KERNELS = [
    name for name, one in vars(triton_steps).items() if isinstance(one, triton.JITFunction) and "acts" in one.arg_names
]
KEPT = {"before_h", "before_c", "squashed", "inner"}  # written for the backward pass alone


def source(name, element, join, featured, keep):
    """A kernel with arrays of `element`, as `_Steps.launch` calls it."""
    kernel, types, constants = getattr(triton_steps, name), {}, {}
    fixed = {"KEEP": keep, "H": 37, "BLOCK": triton_steps.BLOCK}
    fixed["F"] = triton.language.float64 if element == "fp64" else triton.language.float32
    for one in kernel.arg_names:
        absent = one in KEPT and not keep and not name.endswith("back")
        if one in ("start", "elements"):
            types[one] = "i32"
        elif one.isupper():
            constants[one] = fixed.get(one, join)
        elif absent or (one in ("feature", "d_feature") and not featured):
            constants[one] = None
        else:
            types[one] = f"*{element}"
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
    """On the CPU nothing is launched; where kernels run, all tensors must lie and be of one dtype."""
    x = torch.randn(2, 3)
    assert fused.faster_steps(2, x) is None
    monkeypatch.setattr(fused, "KERNELS_ON", "cpu")
    assert fused.faster_steps(2, x, None, x) is triton_steps
    assert fused.faster_steps(2, x, x.double()) is None
    assert fused.faster_steps(2, x.to(torch.int64)) is None
