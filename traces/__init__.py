"""Traces: captures on disk, byte layouts, decoders and the EventTable."""
