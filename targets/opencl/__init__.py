"""OpenCL: targets and their schedule rules, and the runtime for TVM's OpenCL modules."""
