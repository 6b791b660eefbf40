"""Schedule rules that CUDA and OpenCL share: blocks of threads, shared memory, barriers."""
