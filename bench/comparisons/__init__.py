"""Which of several ways is faster or cheaper, and whether that was shown. Pure functions of records."""
