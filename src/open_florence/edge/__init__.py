"""Answers without PyTorch: an ONNX export, run with NumPy, tokenizers, Pillow and onnxruntime alone."""

from open_florence.edge.predictor import EdgePredictor

__all__ = ["EdgePredictor"]
