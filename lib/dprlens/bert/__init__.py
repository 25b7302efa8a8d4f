"""BERT: where it keeps its parts, the one forward pass, what it knows (cloze), models from elsewhere."""
