"""alembic asks for an environment script; ours is configured by `sysproc.storage.migrate`, so nothing belongs here."""
