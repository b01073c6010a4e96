//! The workloads: what is called in the lanes, and what every reply must look like.

mod data;
mod files;
mod listing;
mod make;
mod mixed;

pub(super) use data::{Access, Data, DataFile, Order};
pub(super) use files::{Files, Query, Stock};
pub(super) use listing::Listing;
pub(super) use make::{Fill, Make, Remove, Then};
pub(super) use mixed::{Asked, Mixed};
