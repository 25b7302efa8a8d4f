"""Section 3 of the paper: neurons that matter for a question (Figures 1 to 7, Table 2)."""
