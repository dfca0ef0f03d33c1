"""unmask: an open NPU stack for diffusion language models."""
