"""A painter as an ONNX file, for programs without torch."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path

import torch

from nst_lightning.errors import InputError
from nst_lightning.painters.files import Trained
from nst_lightning.runs import replacing

WITHIN = 1e-4  # of torch's paintings
_SIZES = ((48, 64), (67, 49))  # px, of which the first is traced


def export(trained: Trained, path: Path, overwrite: bool = False) -> Path:
    """Writes an ONNX file that paints photographs of any number and size, and returns its path.

    Its inputs are `photograph`, sRGB in [0, 1] (N, 3, H, W), and `styles`, their weights (N, styles); its output is
    `painting`, not clamped. It is painted with by onnxruntime before it takes the place of `path`.

    Raises:
        ModuleNotFoundError: If the extra `onnx` is not installed.
        InputError: If its paintings are not torch's within `WITHIN`.
    """
    import_module("onnx")  # an extra, as the next
    runtime = import_module("onnxruntime")
    network = trained.network.cpu().eval()
    draw = torch.Generator().manual_seed(0)
    inputs = [
        (torch.rand(2, 3, *size, generator=draw), torch.rand(2, network.styles, generator=draw)) for size in _SIZES
    ]
    axes = {name: {0: "count", 2: "height", 3: "width"} for name in ("photograph", "painting")}
    with replacing(path, overwrite) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of its own age and of sizes, which are checked below
        torch.onnx.export(
            network,
            inputs[0],
            str(file),
            dynamo=False,  # the other exporter takes onnxscript, and fixes the sizes
            opset_version=17,
            input_names=["photograph", "styles"],
            output_names=["painting"],
            dynamic_axes={**axes, "styles": {0: "count"}},
        )
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for photograph, mix in inputs:
            with torch.no_grad():
                expected = network(photograph, mix)
            (found,) = session.run(None, {"photograph": photograph.numpy(), "styles": mix.numpy()})
            off = float((torch.from_numpy(found) - expected).abs().max())
            if not off < WITHIN:
                raise InputError(f"{path}: onnxruntime's painting is off by {off:.1g}, more than {WITHIN}: not written")
    return path
