"""Commands over the management API of a Billhook elsewhere: `--url` and `--key` say which, and who asks.

A module for each resource has what its commands ask, in the shape in which the database answers them.
"""
