//! A2: two jails on one address share tag, pass rules, limits, labels.
