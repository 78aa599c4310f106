//! What the fuzz targets share: the way past checksums ([`seal`]), bytes as a row of decisions ([`Choices`]), and
//! a hostile guest on one device ([`guest`]), and
//! frames ([`packet`]).
//!
//! Not here: what a target holds true; each says so at its own head.

#[path = "../../crates/riscv/tests/world/bounds.rs"]
mod bounds;
pub mod choices;
#[path = "../../crates/riscv/tests/world/driver.rs"]
#[allow(dead_code)]
mod driver;
pub mod guest;
pub mod packet;
pub mod seal;

pub use choices::Choices;
