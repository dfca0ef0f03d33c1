"""dLLM networks in plain PyTorch, checkpoints, tokenizers; one file per family."""
