"""Converters of ONNX operators, one file a family; see ``registry`` for their form."""
