"""Devices of another machine, reached by TVM's RPC."""
