//! The log from outside: what it promises, on disks that behave and disks that do not.

mod basics;
mod check;
mod common;
mod crash;
mod damage;
mod failed_flush;
mod failing;
mod model;
