"""Other people's files → an encoder, and back."""
