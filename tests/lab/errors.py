"""The one error of the lab: a sentence that says what is wrong and what to do."""


class LabError(Exception):
    """Raised when the lab cannot do what was asked; its text is shown to the user as one line."""
