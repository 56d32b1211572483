"""Public data sets as events: the conversions by the name of their format.

In: the Parquet file of a data set.
Out: a file of events and a summary of what was written, left out and made up.
Must not know: the command line. Rule: the same source and seed give the same bytes.
"""

from __future__ import annotations

from streams.conversion import ConvertError, ConvertSummary
from streams.convert_rees46 import convert_rees46
from streams.convert_uci import convert_uci

__all__ = ["ConvertError", "ConvertSummary", "convert_rees46", "convert_uci"]
