"""The command line: one thin file per command, which parses, calls a workflow and prints."""
