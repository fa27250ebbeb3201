"""What has a second implementation: the definition in plain torch, and faster forms of it."""
