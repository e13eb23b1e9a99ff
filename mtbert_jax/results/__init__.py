"""What finished runs came to, as data: rows, differences, intervals, tables."""
