//! Measures lastword beside other systems in one run, and guards the cost of its hot paths.
//!
//! ```text
//! inputs.rs           stores, rows and frames that are the same in every run
//! bin/hot_paths/      the guard: instructions of each hot path, against a baseline
//! ../benches/micro.rs the same paths by the clock, for whoever makes them faster
//! ```

pub mod inputs;
