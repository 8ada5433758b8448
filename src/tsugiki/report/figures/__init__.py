"""SVG figures: small, hand-written, styled by the page's CSS so that they follow light, dark and print."""
