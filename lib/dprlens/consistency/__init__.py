"""Section 2 of the paper: probes of the layers before and after DPR training (Table 1)."""
