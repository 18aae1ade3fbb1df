"""The command line: arguments in, API calls out; the only part that prints."""
