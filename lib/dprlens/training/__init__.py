"""Training: masked-LM pre-training and dense passage retrieval."""
