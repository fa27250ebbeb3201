"""Databases of labeled faces, each read into memory as a `Database`."""

from fer.data.faces import Database, FaceSet
from fer.data.ferplus import load_ferplus
from fer.data.rafdb import load_rafdb
from fer.data.synthetic import synthetic_faces

__all__ = ["Database", "FaceSet", "load_ferplus", "load_rafdb", "synthetic_faces"]
