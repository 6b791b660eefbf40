"""Networks as published, without weights: what benchmarks run with random ones."""
