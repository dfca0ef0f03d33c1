"""Model and policy to program: tiling, memory plan, kernels; one file per kernel."""
