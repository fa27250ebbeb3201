"""Databases of labeled faces, each read into memory as a `Database`."""

from fer.data.faces import Database, FaceSet
from fer.data.table import DATABASES, read_database

__all__ = ["DATABASES", "Database", "FaceSet", "read_database"]
