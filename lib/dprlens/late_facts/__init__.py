"""Chapter B.2: does it matter when a model was told a fact?"""
