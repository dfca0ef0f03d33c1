"""The sampling half of a denoising step: from logits in HBM to candidates, confidences and the new ids of the active block."""
