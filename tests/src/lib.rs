//! A home for tests that judge the whole machine by an oracle; see `oracle/`. Tests with real processes live with the
//! command that they start, in `crates/cli/tests`.
