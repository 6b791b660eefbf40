"""OpenCL: the runtime for TVM's OpenCL modules and devices, and what a device can do."""
