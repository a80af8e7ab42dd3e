"""Errors of the user's making: one line that says what, where and how to fix it. The command line prints them and exits with 2."""


class UserError(Exception):
    """Raise with one line: what is wrong, where, and what to do about it."""
