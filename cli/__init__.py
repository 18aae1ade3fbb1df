"""Command line: turn arguments into calls of the API and print results; nothing else prints."""
