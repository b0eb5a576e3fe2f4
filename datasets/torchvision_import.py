"""The only module that imports torchvision, so that it works next to a CPU build of torch when it is a CUDA build.

In such a pair torchvision's compiled operators are not registered, and `import torchvision` fails with `operator
torchvision::nms does not exist`. Its pure-Python parts only need the schemas of two operators.
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
    """Import `torchvision` or one of its submodules (`transforms.v2`). With a matched torch, a plain import.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: importing it fails for another reason than the missing operators.
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
    # Drop the submodules that the failed import left behind without their package.
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    return importlib.import_module(name)
