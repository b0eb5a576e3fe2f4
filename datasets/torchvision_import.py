"""The one place that imports torchvision, so that a CPU build of torch may stand beside a CUDA build of torchvision.

In such a pair torchvision's compiled operators fail to register and `import torchvision` ends in `operator
torchvision::nms does not exist`. Its pure-Python parts need no more than the schemas of two operators.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_SCHEMAS = {
    "torchvision::nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "torchvision::qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def import_torchvision(submodule: str = "") -> ModuleType:
    """`torchvision`, or one of its submodules (`transforms.v2`, `tv_tensors`). On a matched pair a plain import.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it cannot be imported for another reason than the missing operators.
    """
    name = f"torchvision.{submodule}" if submodule else "torchvision"
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    import torch

    for operator, schema in _SCHEMAS.items():
        torch.library.define(operator, schema)
    # The failed import left some submodules behind that hold no package.
    for left in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[left]
    return importlib.import_module(name)


def import_v2() -> ModuleType:
    """`torchvision.transforms.v2`."""
    return import_torchvision("transforms.v2")
