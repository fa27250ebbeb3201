"""The parts of a report: the content of a run's folder, its numbers and figures, and the page."""
