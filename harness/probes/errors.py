"""What can go wrong with a probe.

HarnessError
└── ProbeError            a row of the table, or the debug information that it needs
"""

from __future__ import annotations

from blkproof.harness.errors import HarnessError


class ProbeError(HarnessError):
    """A probe can't be compiled or was refused: names the row, the expression and what is wrong with it."""
