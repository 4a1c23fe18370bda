"""The one family of exceptions that Focalis raises on purpose; each message is a line for a person."""


class FocalisError(Exception):
    """Something a person can mend: the message says what is wrong, where, and what to do next."""


class UsageError(FocalisError):
    """The call itself is wrong: an unknown option value, a path that is not there."""


class DataError(FocalisError):
    """A file or a data set cannot be used; the message names the file."""


class PlanError(FocalisError):
    """A plan file is malformed or does not fit the data."""


class ModelError(FocalisError):
    """A model file is malformed, or the model cannot take this input."""


class TrainingError(FocalisError):
    """Training cannot start, cannot continue, or diverged."""


class DivergedError(TrainingError):
    """The loss or its gradient is no longer finite."""
