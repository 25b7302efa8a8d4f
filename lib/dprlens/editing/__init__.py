"""Section 4 of the paper: facts added to BERT and removed from it (Tables 3 and 4)."""
