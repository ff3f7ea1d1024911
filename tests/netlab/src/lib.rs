//! The programs in network namespaces behind real NATs.
