"""The one exception for mistakes a person can mend: its message is one sentence saying what is wrong and where."""


class OpenFlorenceError(ValueError):
    """A misspelt task, a missing query, an unreadable file: printed by the command line, exit code 2."""
