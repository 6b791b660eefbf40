"""Converters of Relay's operators, one file a family."""
