"""How the shipped model came to be: corpus, tokenizer, training, and what it is measured by."""
