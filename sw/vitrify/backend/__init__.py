"""Vitrify behind the interface that ONNX has for whatever runs its models: ``onnx.backend``.

>>> import onnx
>>> import vitrify.backend as backend
>>> prepared = backend.prepare(onnx.load("vit.onnx"), calibration={"image": pictures})
>>> logits, = prepared.run([pictures])

``python -m bench.backend`` runs the cases of ``onnx.backend.test`` through it.
"""

from .adapter import Prepared, VitrifyBackend
from .forms import as_sample, with_constants

is_compatible = VitrifyBackend.is_compatible
prepare = VitrifyBackend.prepare
run_model = VitrifyBackend.run_model
run_node = VitrifyBackend.run_node
supports_device = VitrifyBackend.supports_device

__all__ = [
    "Prepared",
    "VitrifyBackend",
    "as_sample",
    "is_compatible",
    "prepare",
    "run_model",
    "run_node",
    "supports_device",
    "with_constants",
]
