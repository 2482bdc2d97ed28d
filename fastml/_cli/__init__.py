"""The commands of ``python -m fastml``."""


class CommandError(Exception):
    """Something the user can put right: shown as one line, without a traceback."""
