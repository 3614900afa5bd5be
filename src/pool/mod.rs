//! to come
#![forbid(unsafe_code)]

pub mod arguments;
pub mod board;
pub mod delivery;
pub mod host;
pub mod job;
pub mod journal;
pub mod make;
pub mod map;
pub mod nursery;
pub mod table;
pub mod task;
pub mod worker;

pub use host::{Stats, Submission};
pub use job::{Callbacks, Job, Outcome};
pub use make::{Options, Pool};
pub use map::Map;
pub use table::Order;
pub use task::{Code, Task};
