//! The contract.
#![no_std]
