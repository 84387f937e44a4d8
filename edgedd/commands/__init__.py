"""The commands beside `distill`, `export` and `train`, and what all of them print."""
