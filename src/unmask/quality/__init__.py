"""What decoding is worth: the quality of generated text beside the forward passes that it took, by policy and by number format."""
