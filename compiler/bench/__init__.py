"""Models beside every peer, and each time beside the machine's limit."""
