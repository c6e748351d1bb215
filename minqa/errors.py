"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """Input that cannot be used; its message is one sentence: what is wrong, where, what to do."""
