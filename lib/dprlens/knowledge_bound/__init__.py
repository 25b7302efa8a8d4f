"""Chapter B.1: dependence of retrieval on the facts stated in pre-training."""
