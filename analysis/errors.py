"""What can go wrong in the analysis itself.

::

    AnalysisError
    └── RuleDefinitionError    a rule is registered twice, or its id is no id

A broken protocol is a Finding, and a capture that can't be read is a CaptureError: neither is in here.
"""

from __future__ import annotations


class AnalysisError(Exception):
    """The analysis could not do its work; the message is one line and says what to do."""


class RuleDefinitionError(AnalysisError):
    """The definition of a rule is wrong: mend the file that the message names."""
