"""What can only be measured on a GPU; results are in docs/gpu.md."""
