"""Analysis: the reference model, the rules, verdicts, explanations and reports."""
