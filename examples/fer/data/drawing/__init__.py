"""Faces as polygons: who is drawn, seen how, lit how, and where; `face` puts it together."""
