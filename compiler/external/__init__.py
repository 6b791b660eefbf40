"""Compilers other than TVM that take regions of a graph."""
