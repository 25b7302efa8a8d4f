"""BERT: the names of its parts, the one forward pass, cloze recall, and models from elsewhere."""
