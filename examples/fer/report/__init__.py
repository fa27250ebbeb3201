"""The parts of a report: what a run's folder says, its numbers and figures, and the page."""
