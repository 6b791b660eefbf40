"""The story of one compilation: import, optimize, tune, build, run, compare."""
