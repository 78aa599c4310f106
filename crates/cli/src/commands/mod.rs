//! One file a command.

pub mod arbiter;
pub mod backup;
pub mod build;
pub mod detach;
pub mod door;
pub mod image;
pub mod image_cache;
pub mod image_import;
pub mod image_machine;
pub mod record;
pub mod replay;
pub mod run;
pub mod simulate;
pub mod ssh;
pub mod status;
pub mod switch;
