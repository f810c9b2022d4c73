//! What the user may do in MySQL, and what it must be able to do. Pure.

use std::collections::BTreeSet;

use super::{Wanted, facts::Facts};
use crate::mirror::Config;

/// `--user` is not a user of MySQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user: {0:?} is no user of MySQL: write 'NAME'@'HOST', such as 'lastword'@'10.0.0.%'")]
pub struct GrantError(String);

/// A privilege on the database, and what for.
pub(super) struct Needed {
    pub(super) privilege: &'static str,
    pub(super) what_for: &'static str,
}

/// What the user needs in the database.
pub(super) fn needed(wanted: Wanted<'_>) -> Vec<Needed> {
    let mut needed = vec![
        Needed { privilege: "SELECT", what_for: "to read where MySQL stands" },
        Needed { privilege: "INSERT", what_for: "to write rows" },
        Needed { privilege: "UPDATE", what_for: "to write rows" },
        Needed { privilege: "DELETE", what_for: "to delete rows" },
        Needed { privilege: "CREATE", what_for: "to make tables" },
    ];
    if wanted.captures() {
        let what_for = "to capture what applications write";
        needed.push(Needed { privilege: "TRIGGER", what_for });
        let what_for = "to make the outbox of a captured table anew";
        needed.push(Needed { privilege: "DROP", what_for });
        let what_for = "to fit an outbox to a table whose key was altered";
        needed.push(Needed { privilege: "ALTER", what_for });
    } else if wanted.guards_triggers() {
        let what_for = "to guard the triggers of applications";
        needed.push(Needed { privilege: "TRIGGER", what_for });
    } else if wanted.has_column_tables() {
        let what_for = "to see the triggers of tables with columns of their own";
        needed.push(Needed { privilege: "TRIGGER", what_for });
    }
    needed
}

/// Those that are missing.
pub(super) fn missing(facts: &Facts, wanted: Wanted<'_>) -> Vec<Needed> {
    let held = held(&facts.grants, &facts.database);
    let has_all = held.contains("ALL PRIVILEGES") || held.contains("ALL");
    let missing = |needed: &Needed| !has_all && !held.contains(needed.privilege);
    needed(wanted).into_iter().filter(missing).collect()
}

/// Whether the user holds a privilege everywhere.
pub(super) fn holds_globally(facts: &Facts, privilege: &str) -> bool {
    let global = facts.grants.iter().filter_map(|line| parse(line));
    global.filter(|grant| grant.object == "*.*").any(|grant| {
        grant.privileges.iter().any(|held| *held == privilege || *held == "ALL PRIVILEGES")
    })
}

/// The statements that give a user what it needs for these settings, and nothing more. `user`:
/// `'NAME'@'HOST'`, with or without quotes.
///
/// # Errors
///
/// [`GrantError`]: there is no `@`, or a part is empty.
pub fn statements(config: &Config, user: &str) -> Result<Vec<String>, GrantError> {
    let (user, wanted) = (quoted(user)?, Wanted::of(config));
    let privileges: Vec<_> = needed(wanted).iter().map(|needed| needed.privilege).collect();
    let privileges = privileges.join(", ");
    let mut all =
        vec![format!("GRANT {privileges} ON {}.* TO {user};", pattern(&config.target.database))];
    if wanted.guards_triggers() {
        // To make a trigger anew that somebody else defined.
        all.push(format!(
            "GRANT SET USER ON *.* TO {user}; -- MySQL 8.0: SET_USER_ID, 8.4: SET_ANY_DEFINER"
        ));
    }
    Ok(all)
}

/// The statement that mends what is missing.
pub(super) fn mending(facts: &Facts, missing: &[Needed]) -> String {
    let user = quoted(&facts.user).unwrap_or_else(|_| facts.user.clone());
    let privileges: Vec<_> = missing.iter().map(|needed| needed.privilege).collect();
    format!("GRANT {} ON {}.* TO {user};", privileges.join(", "), pattern(&facts.database))
}

/// In a GRANT `_` and `%` of a database's name stand for other signs, too.
fn pattern(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%");
    format!("`{}`", escaped.replace('`', "``"))
}

fn quoted(user: &str) -> Result<String, GrantError> {
    let (name, host) = user.rsplit_once('@').ok_or_else(|| GrantError(user.to_owned()))?;
    let quote = |part: &str| {
        let bare = ['\'', '`', '"']
            .iter()
            .find_map(|&sign| part.strip_prefix(sign).and_then(|part| part.strip_suffix(sign)));
        let bare = bare.unwrap_or(part);
        (!bare.is_empty()).then(|| format!("'{}'", bare.replace('\\', "\\\\").replace('\'', "''")))
    };
    match (quote(name.trim()), quote(host.trim())) {
        (Some(name), Some(host)) => Ok(format!("{name}@{host}")),
        _ => Err(GrantError(user.to_owned())),
    }
}

/// A line of `SHOW GRANTS`.
struct Grant<'a> {
    privileges: Vec<&'a str>,
    object: &'a str,
}

/// `None`: a role, or whatever else is no privilege on something.
fn parse(line: &str) -> Option<Grant<'_>> {
    let (privileges, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
    let (object, _) = rest.split_once(" TO ")?;
    Some(Grant { privileges: privileges.split(',').map(str::trim).collect(), object })
}

/// What may be done in all of the database: privileges on single tables or columns do not help with tables
/// that are yet to come.
fn held<'a>(grants: &'a [String], database: &str) -> BTreeSet<&'a str> {
    grants
        .iter()
        .filter_map(|line| parse(line))
        .filter(|grant| grant.object == "*.*" || is_for(grant.object, database))
        .flat_map(|grant| grant.privileges)
        .collect()
}

fn is_for(object: &str, database: &str) -> bool {
    let pattern = object.strip_suffix(".*").unwrap_or_default();
    let pattern = pattern.strip_prefix('`').and_then(|pattern| pattern.strip_suffix('`'));
    pattern.is_some_and(|pattern| {
        let pattern: Vec<char> = pattern.replace("``", "`").chars().collect();
        let name: Vec<char> = database.chars().collect();
        is_like(&name, &pattern)
    })
}

/// As LIKE.
fn is_like(name: &[char], pattern: &[char]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        (['%', rest @ ..], _) => (0..=name.len()).any(|from| is_like(&name[from..], rest)),
        (['\\', sign, rest @ ..], [first, name @ ..]) => sign == first && is_like(name, rest),
        (['_', rest @ ..], [_, name @ ..]) => is_like(name, rest),
        ([sign, rest @ ..], [first, name @ ..]) => sign == first && is_like(name, rest),
        (_, []) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::{
        Triggers,
        doctor::tests::{capturing, plain},
    };

    fn missing_of(lines: &[&str], database: &str, config: &Config) -> Vec<&'static str> {
        let facts = Facts {
            grants: lines.iter().map(|&line| line.to_owned()).collect(),
            database: database.to_owned(),
            ..Facts::default()
        };
        missing(&facts, Wanted::of(config)).iter().map(|needed| needed.privilege).collect()
    }

    #[test]
    fn what_is_missing_is_found() {
        let plain = plain();
        let usage = "GRANT USAGE ON *.* TO `lastword`@`%` IDENTIFIED BY PASSWORD '*2470C0C06'";
        let four = "GRANT SELECT, INSERT, UPDATE, DELETE ON `shop`.* TO `lastword`@`%`";
        let all = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE"];
        assert_eq!(missing_of(&[usage], "shop", &plain), all);
        assert_eq!(missing_of(&[usage, four], "shop", &plain), ["CREATE"]);
        assert_eq!(missing_of(&[usage, four], "other", &plain), all);
        assert_eq!(
            missing_of(&[usage, four], "shop", &capturing()),
            ["CREATE", "TRIGGER", "DROP", "ALTER"]
        );
        let rest = "GRANT CREATE, ALTER, DROP, TRIGGER ON *.* TO `lastword`@`%` WITH GRANT OPTION";
        assert!(missing_of(&[four, rest], "shop", &capturing()).is_empty());
        let root = "GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION";
        assert!(missing_of(&[root], "shop", &capturing()).is_empty());
        let table = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `shop`.`t` TO `l`@`%`";
        assert_eq!(missing_of(&[table], "shop", &plain), all);
        let columns = "GRANT SELECT (a, b), INSERT (a) ON `shop`.* TO `l`@`%`";
        assert_eq!(missing_of(&[columns], "shop", &plain), all);
        assert_eq!(missing_of(&["GRANT `role` TO `l`@`%`"], "shop", &plain), all);
    }

    #[test]
    fn names_of_databases_are_patterns() {
        for (object, database, is) in [
            ("`my\\_shop`.*", "my_shop", true),
            ("`my\\_shop`.*", "myxshop", false),
            ("`my_shop`.*", "myxshop", true),
            ("`shop%`.*", "shop_fra", true),
            ("`%`.*", "any", true),
            ("`shop`.*", "shops", false),
            ("`shop`.`t`", "shop", false),
        ] {
            assert_eq!(is_for(object, database), is, "{object} {database}");
        }
    }

    #[test]
    fn the_statements_give_what_is_needed() {
        let mut config = plain();
        config.target.database = "my_shop".into();
        assert_eq!(
            statements(&config, "'lastword'@'10.0.0.%'").unwrap(),
            ["GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `my\\_shop`.* TO \
              'lastword'@'10.0.0.%';"]
        );
        let mut config = capturing();
        let capture =
            ["GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, TRIGGER, DROP, ALTER ON `shop`.* TO \
                        'o''hara'@'%';"];
        assert_eq!(statements(&config, "o'hara@%").unwrap(), capture);
        config.tables[0].triggers = Triggers::Guard;
        let guarding = statements(&config, "o'hara@%").unwrap();
        assert_eq!(guarding[0], capture[0]);
        assert!(guarding[1].starts_with("GRANT SET USER ON *.* TO 'o''hara'@'%';"), "{guarding:?}");
        config.tables[0].capture = false;
        let guarding = statements(&config, "o'hara@%").unwrap();
        assert!(guarding[0].contains("CREATE, TRIGGER ON") && guarding.len() == 2, "{guarding:?}");
        config.tables[0].triggers = Triggers::Refuse;
        let columns = statements(&config, "o'hara@%").unwrap();
        assert!(columns[0].contains("CREATE, TRIGGER ON") && columns.len() == 1, "{columns:?}");
        for user in ["lastword", "@host", "''@'host'", "lastword@"] {
            assert!(statements(&plain(), user).is_err(), "{user}");
        }
    }
}
