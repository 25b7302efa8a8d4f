"""dprlens: what dense passage retrieval training does to BERT, chapter by chapter. See README.md."""
