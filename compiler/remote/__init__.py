"""Regions that run on another machine's device: compiled here, sent there, called."""
