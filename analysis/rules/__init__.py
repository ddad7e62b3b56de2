"""The rules, one topic a file; importing this package registers them all."""
