//! The mock tested with a bare http client and AWS' own signer, so that it errs on its own and not along with the program
//! that it tests.

mod access;
mod cmr;
mod credentials;
mod faults;
mod lean;
mod listing;
mod login;
mod meter;
mod objects;
mod support;
mod synthetic;
mod tls;
mod wire;
