"""TFLite models, on TVM's converters and ours."""
