"""Charts of the lab: surrogates of the pinned ones, where the real ones are out of reach."""
