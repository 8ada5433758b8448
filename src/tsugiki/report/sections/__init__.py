"""The parts of the page: each module turns artifacts into a view model; templates only lay it out."""
