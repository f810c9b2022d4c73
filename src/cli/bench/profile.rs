//! Workloads of production caches, built in.
//!
//! Source: Yang, Yue, Vinayak: "A large scale analysis of hundreds of in-memory cache clusters at
//! Twitter", OSDI 2020; the public statistics of 54 clusters (twitter/cache-trace,
//! stat/2020Mar.md). Key and value sizes are means; the time to live is the commonest one.

use std::time::Duration;

/// What a workload does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Profile {
    /// The cluster's name in the source.
    pub(super) name: &'static str,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
    /// Shares of the operations; the rest of 1 are writes.
    pub(super) get_share: f64,
    pub(super) delete_share: f64,
    /// How unevenly the keys are asked for: 0 evenly, 1 a few most of the time.
    pub(super) zipf_exponent: f64,
    pub(super) ttl: Duration,
}

/// The profiles, by name.
pub(super) const PROFILES: [Profile; 5] = [
    Profile {
        name: "cluster4",
        key_bytes: 67,
        value_bytes: 2_439,
        get_share: 0.93,
        delete_share: 0.0,
        zipf_exponent: 1.1004,
        ttl: Duration::from_secs(60),
    },
    Profile {
        name: "cluster12",
        key_bytes: 44,
        value_bytes: 1_030,
        get_share: 0.20,
        delete_share: 0.0,
        zipf_exponent: 0.3048,
        ttl: Duration::from_secs(300),
    },
    Profile {
        name: "cluster14",
        key_bytes: 96,
        value_bytes: 414,
        get_share: 0.65,
        delete_share: 0.22,
        zipf_exponent: 1.2959,
        ttl: Duration::from_secs(86_400),
    },
    Profile {
        name: "cluster19",
        key_bytes: 42,
        value_bytes: 101,
        get_share: 0.75,
        delete_share: 0.0,
        zipf_exponent: 0.7350,
        ttl: Duration::from_secs(25_200),
    },
    Profile {
        name: "cluster40",
        key_bytes: 44,
        value_bytes: 155,
        get_share: 0.50,
        delete_share: 0.0,
        zipf_exponent: 0.8551,
        ttl: Duration::from_secs(28_800),
    },
];

impl std::str::FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Profile, String> {
        PROFILES.into_iter().find(|profile| profile.name == name).ok_or_else(|| {
            let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
            format!("no such workload: use one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shares_and_names_are_found() {
        for profile in PROFILES {
            assert!((0.0..=1.0).contains(&(profile.get_share + profile.delete_share)));
            assert_eq!(profile.name.parse(), Ok(profile));
        }
        assert!("cluster0".parse::<Profile>().unwrap_err().contains("cluster12"));
    }
}
