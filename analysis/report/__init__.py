"""Reports: a self-contained HTML page, a table on the terminal, JSON and JUnit, all from the same runs."""
