"""A look inside: heads, units, influence, alignment and several encoders side by side."""
