//! Measures lastword beside other systems in one run, and guards the cost of its hot paths.
