//! What a node is for: a [`Role`].

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a node is for. It stands in the member list, where a site's need not be named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It serves its site: clients read and write.
    #[default]
    Site,
    /// It holds all rows, and clients only read.
    Replica,
}

impl Role {
    /// Whether clients may write.
    #[must_use]
    pub fn takes_writes(self) -> bool {
        self == Role::Site
    }

    /// Whether it need not be named.
    #[must_use]
    pub fn is_site(&self) -> bool {
        *self == Role::Site
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Site => "site",
            Role::Replica => "replica",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        match text {
            "site" => Ok(Role::Site),
            "replica" => Ok(Role::Replica),
            _ => Err(format!("{text:?} is no role: use site or replica")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nothing_else_is_a_role() {
        for role in [Role::Site, Role::Replica] {
            assert_eq!(role.to_string().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.to_string());
        }
        assert!("Replica".parse::<Role>().is_err() && "".parse::<Role>().is_err());
    }
}
