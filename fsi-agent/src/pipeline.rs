//! The data path as one list of stages.
