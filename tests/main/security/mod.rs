//! What docs/security.md says is done about other users of the host and about servers that lie. Logins
//! that servers try to get are in `attacks`, secrets in `secrets`, files that are shared in `sharing`.

mod files;
mod mounts;
mod servers;
mod tree;
