//! What is sent and when: the frames of a round, the schedule of rounds, the injection methods, and one announcement as a
//! state machine.

pub mod failure;
pub mod frame;
pub(crate) mod frame_names;
pub mod handover;
pub(crate) mod hold;
pub mod injection;
pub(crate) mod machine;
pub mod progress;
pub(crate) mod query;
pub(crate) mod question;
pub(crate) mod quota;
mod retry;
pub(crate) mod schedule;
pub(crate) mod spell;
pub(crate) mod uplink;
