"""Worlds: their records, the generated encyclopedia, the world of DPR's files, statements of facts."""
