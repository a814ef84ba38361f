"""Operators of the com.microsoft domain, as ONNX Runtime's optimizer writes them."""
