"""Section 3 of the paper: which neurons matter for a question (Figures 1 to 7, Table 2)."""
