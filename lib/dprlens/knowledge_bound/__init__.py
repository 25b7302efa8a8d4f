"""Chapter B.1: does retrieval depend on what pre-training stated?"""
