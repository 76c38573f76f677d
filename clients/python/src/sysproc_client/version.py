"""The version of this tree: of the client and of the server, which are released together.

Only the number belongs here. Both distributions read it when they are built; at run time it is asked from the
metadata of what is installed.
"""

VERSION = "0.1.0"
