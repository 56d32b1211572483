"""History to quantiles: forecasters over arrays. Knows horizons and levels, never a shop or a broker."""
