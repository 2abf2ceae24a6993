//! The program from outside: a real FUSE mount, real HTTP, credentials that really expire.
//!
//! Each test starts a world of its own (`mock_earthdata::World`) and mounts through the real program
//! ([`support::Mount`]), which is unmounted and ended when the test is over, passed or failed.

#[path = "main/network.rs"]
mod network;
#[path = "main/ordinary.rs"]
mod ordinary;
#[path = "main/scripted.rs"]
mod scripted;
#[path = "main/support.rs"]
mod support;

#[path = "main/attacks.rs"]
mod attacks;
#[path = "main/aws.rs"]
mod aws;
#[path = "main/background.rs"]
mod background;
#[path = "main/buckets.rs"]
mod buckets;
#[path = "main/bytes.rs"]
mod bytes;
#[path = "main/check.rs"]
mod check;
#[path = "main/crash.rs"]
mod crash;
#[path = "main/day.rs"]
mod day;
#[path = "main/documents.rs"]
mod documents;
#[path = "main/expiry.rs"]
mod expiry;
#[path = "main/failing.rs"]
mod failing;
#[path = "main/faults.rs"]
mod faults;
#[path = "main/faults_of_names.rs"]
mod faults_of_names;
#[path = "main/fetching.rs"]
mod fetching;
#[path = "main/fetching_files.rs"]
mod fetching_files;
#[path = "main/fetching_many.rs"]
mod fetching_many;
#[path = "main/handing_out.rs"]
mod handing_out;
#[path = "main/layers.rs"]
mod layers;
#[path = "main/library.rs"]
mod library;
#[path = "main/listing.rs"]
mod listing;
#[path = "main/load.rs"]
mod load;
#[path = "main/logging.rs"]
mod logging;
#[path = "main/logins.rs"]
mod logins;
#[path = "main/lookups.rs"]
mod lookups;
#[path = "main/messages.rs"]
mod messages;
#[path = "main/model.rs"]
mod model;
#[path = "main/programs.rs"]
mod programs;
#[path = "main/promises/mod.rs"]
mod promises;
#[path = "main/reading.rs"]
mod reading;
#[path = "main/secrets.rs"]
mod secrets;
#[path = "main/security/mod.rs"]
mod security;
#[path = "main/sharing.rs"]
mod sharing;
#[path = "main/unmounting.rs"]
mod unmounting;
