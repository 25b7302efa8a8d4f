"""Chapter B.2: effect on retrieval of when a model reads a fact."""
