"""Operators with more than one implementation: the definition in plain torch, and faster forms."""
