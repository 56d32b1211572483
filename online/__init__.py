"""Forecast and truth to correction: outcomes and scores. Knows arrays of forecasts, never a shop."""
