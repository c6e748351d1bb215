"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """Input that cannot be used; its message is one sentence: what is wrong, where, what to do."""


def first_line(error: BaseException) -> str:
    """What another library's error says, without the advice on its further lines and without a full stop."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
