"""The command line: one module per command; parses, calls, prints; imports nothing heavy until a command
runs.
"""
