//! Checks passwords without seeing them, certifies keys, hands out the roster.
