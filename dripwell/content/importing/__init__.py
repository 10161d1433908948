"""Files of subscribers: read piece by piece, understood by their columns, judged row by row."""
