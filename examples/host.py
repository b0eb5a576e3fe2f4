"""Reads a crop with greedy.onnx, without this package: `pip install onnxruntime opencv-python-headless`.

python host.py GREEDY.onnx CROP …    (the graph: str-app export small --single-file --out small.onnx)
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
model = json.loads(session.get_modelmeta().custom_metadata_map["str_app"])
canvas, charset = model["preprocessing"], model["charset"]
for path in sys.argv[2:]:
    crop = cv2.imread(path)[:, :, ::-1]
    columns = crop.shape[1] * canvas["height"] / crop.shape[0]
    if columns < canvas["widen_below"]:
        columns = (columns * canvas["widen_below"]) ** 0.5
    columns = max(4, min(round(columns), canvas["widths"][-1]))
    width = next(width for width in canvas["widths"] if width >= columns)
    shrinks = crop.shape[0] > canvas["height"] or crop.shape[1] > columns
    kernel = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = cv2.resize(crop, (columns, canvas["height"]), interpolation=kernel)
    pixels = cv2.copyMakeBorder(small, 0, 0, 0, width - columns, cv2.BORDER_REPLICATE)
    classes, probabilities = session.run(None, {"canvases": pixels[None], "widths": np.array([columns])})
    print(path, "".join(charset[c - 1] for c in classes[0] if c), f"{probabilities[0].prod():.3f}")
