"""What lasts: the hierarchy in SQLite, and the files of roots and images.

Processes, mounts and namespaces are in `sysproc.isolation`; neither imports the other. The verbs compose both.
"""
