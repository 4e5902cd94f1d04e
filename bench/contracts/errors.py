"""The one error type that users see."""


class BenchError(Exception):
    """A problem that the user can act on.

    Its text is one line that says what is wrong, where, and what to do. The command
    line prints it without a traceback and exits with ``exit_code``.
    """

    exit_code = 1
