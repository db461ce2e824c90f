//! Training loops for functions recorded by ad-core.
