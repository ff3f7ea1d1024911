//! Starts the four programs for tests: processes, ports, event streams, namespaces.
