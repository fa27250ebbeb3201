"""Colors and their mixtures."""

Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)


def mix(first: Color, second: Color, share: float) -> Color:
    """Return the color that lies `share` of the way from the first to the second."""
    (r1, g1, b1), (r2, g2, b2) = first, second
    return (
        round(r1 + share * (r2 - r1)),
        round(g1 + share * (g2 - g1)),
        round(b1 + share * (b2 - b1)),
    )
