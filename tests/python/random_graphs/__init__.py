"""Random graphs: `generate` draws one from a seed, `judge` tells whether answers are right."""
