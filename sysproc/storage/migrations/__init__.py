"""The alembic scripts, one file a step in `versions/`; they are run by `sysproc.storage.migrate`, never by hand.

A script is never changed once it has landed: a new step follows it, and `HEAD` in `migrate` names the last one.
"""
