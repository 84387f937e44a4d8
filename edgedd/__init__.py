"""Dataset distillation for the edge."""
