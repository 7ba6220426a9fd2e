//! A1: root of a vnet jail decides where the host's port leads.
