"""Detection, cropping and alignment of faces in pictures."""
