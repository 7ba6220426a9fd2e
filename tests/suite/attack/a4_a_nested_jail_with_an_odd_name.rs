//! A4: a nested jail whose name is not UTF-8.
