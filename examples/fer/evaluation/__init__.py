"""What a model says of faces, how right that is, and how it is summed up."""
