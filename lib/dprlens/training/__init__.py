"""Training: masked-LM pre-training here, dense passage retrieval later."""
