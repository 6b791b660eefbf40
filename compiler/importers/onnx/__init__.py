"""ONNX models: read, pinned, converted node by node into a module under the IR convention.

``registry`` says how a converter is added; ``converters`` holds them, one file a family.
"""
