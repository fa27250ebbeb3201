"""Draw faces as polygons: identity, view, light and setting, which `face` combines."""
